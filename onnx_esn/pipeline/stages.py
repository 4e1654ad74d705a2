"""The stages of `compress`, each run on the model of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from onnx_esn.passes.base import Pass, PassResult
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.learning.float_layers import LearnWeights
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.passes.quantizing.aciq import Aciq
from onnx_esn.passes.quantizing.bit_budget import QuantizeToBudget
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.storing import NONE, Storing
from onnx_esn.pipeline.result import Stage
from onnx_esn.verbs import ON_IMAGES


@dataclass(frozen=True)
class Wanted:
    """How to prune and quantize; names as of `compress`.

    Attributes:
        pruner: the pass that prunes; None: there is nothing to prune, or it was done before.
        lossy: whether pruning is to change what the model computes.
        fine_tune: whether the float weights are fine-tuned too once filters went.
        learning: how to learn; None: not.
        storing: how the result is stored.
    """

    pruner: Prune | None
    lossy: bool
    bits: int | None
    target_cost: str | float | None
    method: str
    effort: str
    channels: bool
    round_to: int
    min_width: int
    quantizer: str
    rotate: bool
    fine_tune: bool
    learning: LearnOptions | None
    storing: Storing


@dataclass
class Stages:
    """What was done so far.

    Attributes:
        source: the model that costs refer to.
        opened: the same with float weights: its outputs are wanted.
        setting: where the passes work; it has images.
        wanted: how to prune and quantize.
        done: the stages, in order.
    """

    source: onnx.ModelProto
    opened: onnx.ModelProto
    setting: Setting
    wanted: Wanted
    done: list[Stage] = field(default_factory=list)

    @property
    def current(self) -> onnx.ModelProto:
        """The model of the last stage."""
        return self.done[-1][1].model if self.done else self.source

    def run(self, name: str, step: Pass) -> PassResult:
        """Run a pass as the next stage."""
        progress = self.setting.walk.progress
        if progress is not None:
            progress(name, 0, 1)
        result = step(self.current)
        self.done.append((name, result))
        if progress is not None:
            progress(name, 1, 1)
        return result

    def prune(self) -> None:
        """Prune, and bring the outputs back to those of the opened model."""
        wanted, setting = self.wanted, self.setting
        if wanted.pruner is None:
            return
        if not self.run("prune", wanted.pruner).modified or not wanted.lossy:
            return
        if wanted.method not in ON_IMAGES:
            self.run("recalibrate", setting.recalibrate(self.opened))
            return
        assert setting.images is not None
        on = (setting.images, self.opened, setting.exclude, setting.only)
        self.run("refit", Reconstruct(*on, setting.walk))
        if wanted.fine_tune and wanted.learning is not None:
            self.run("learn", LearnWeights(*on, wanted.learning))

    def quantize(self) -> None:
        """Quantize by the method, with what that makes necessary."""
        if self.wanted.method in ON_IMAGES:
            self.done += self._compensated().stages(self.current)
        elif self.wanted.method == "aciq":
            self._quantize_by(self._aciq())
        else:
            self._quantize_by(self._rounding())
            self.run("recalibrate", self.setting.recalibrate(self.opened))

    def store(self) -> None:
        """Bring the model into the wanted format."""
        storing = self.wanted.storing
        if storing.nothing:
            return
        plan = next((result.plan for name, result in self.done if name == "quantize"), None)
        name = "export" if storing.activations == NONE else "quantize activations"
        self.run(name, storing.step(self.setting, plan))

    def _quantize_by(self, step: Pass) -> None:
        if self.run("quantize", step).details["pruned_filters"]:
            zero = RemoveZeroFilters(self.setting.shapes)(self.current)
            if zero.modified:
                self.done.append(("remove zero filters", zero))

    def _compensated(self) -> CompensatedQuantization:
        wanted, setting = self.wanted, self.setting
        assert setting.images is not None
        return CompensatedQuantization(
            setting.images,
            bits=wanted.bits,
            target_cost=wanted.target_cost,
            prune=wanted.channels and not wanted.lossy,
            effort=wanted.effort,
            only=setting.only,
            exclude=setting.exclude,
            round_to=wanted.round_to,
            min_width=wanted.min_width,
            most_bits=wanted.storing.most_bits(wanted.quantizer),
            reference=_learned_model(self.done) or self.opened,
            teacher=self.opened,
            cost_of=self.source,
            quantizer=wanted.quantizer,
            input_shape=setting.shapes,
            walk=setting.walk,
            learn=wanted.learning,
            activations=wanted.storing.learned(setting),
            rotate=wanted.rotate,
        )

    def _aciq(self) -> Aciq:
        wanted, setting = self.wanted, self.setting
        return Aciq(
            wanted.bits,
            wanted.target_cost,
            setting.exclude,
            setting.only,
            self.source,
            setting.shapes,
            wanted.quantizer,
        )

    def _rounding(self) -> QuantizeToBudget:
        wanted, setting = self.wanted, self.setting
        rounding = Quantize(
            bits=wanted.bits,
            target_cost=wanted.target_cost,
            only=setting.only,
            exclude=setting.exclude,
            reference=self.source,
            input_shape=setting.shapes,
            quantizer=wanted.quantizer,
        )
        return QuantizeToBudget(rounding, setting.shapes)


def _learned_model(stages: Sequence[Stage]) -> onnx.ModelProto | None:
    """What was fine-tuned: to refit it to the input model again would undo that."""
    learned = [result for name, result in stages if name == "learn" and result.modified]
    return learned[-1].model if learned else None
