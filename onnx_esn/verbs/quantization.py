"""Quantize by one of the methods, with what each makes necessary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.passes.base import Pass, PassResult
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.pruning.absorption import ON_AVERAGE
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.passes.quantizing.aciq import Aciq
from onnx_esn.passes.quantizing.bit_budget import QuantizeToBudget
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.storing import Storing
from onnx_esn.plans import QuantizationPlan
from onnx_esn.plans.bit_policy import BitPolicy
from onnx_esn.verbs.methods import METHODS, ON_IMAGES, check_method
from onnx_esn.verbs.running import changed


@dataclass(frozen=True)
class Quantization:
    """What `quantize` is asked for; see there.

    Attributes:
        learn: how to learn; None: not.
        storing: how the result will be stored, which limits its bits.
        towards: the model whose outputs are wanted.
        cost_of: the model a percentage in `target_cost` refers to; None: the one to quantize.
        rotate: whether linear tensors may be brought into another basis.
    """

    method: str
    bits: int | None
    target_cost: str | float | None
    plan: QuantizationPlan | None
    policy: BitPolicy | str | Path | None
    effort: str
    quantizer: str
    learn: LearnOptions | None
    storing: Storing
    towards: onnx.ModelProto
    cost_of: onnx.ModelProto | None
    rotate: bool

    def __call__(self, model: onnx.ModelProto, setting: Setting) -> PassResult:
        """Quantize; filters of 0 bits go, and statistics are brought back on the images.

        Raises:
            OptionError: the options contradict each other, or the method lacks images.
            OnnxEsnError: see the passes.
        """
        if self.method in ON_IMAGES and self.plan is None:
            return self._compensated(model, setting)
        result = changed(self._step(setting), model)
        return self._consequences(model, result, setting)

    def _compensated(self, model: onnx.ModelProto, setting: Setting) -> PassResult:
        """By losses measured on the images."""
        check_method(self.method, self.bits, self.target_cost, self.policy)
        if setting.images is None:
            raise OptionError(f"method {self.method} needs images (--images)")
        step = CompensatedQuantization(
            setting.images,
            bits=self.bits,
            target_cost=self.target_cost,
            policy=self.policy,
            effort=self.effort,
            only=setting.only,
            exclude=setting.exclude,
            most_bits=self.storing.most_bits(self.quantizer),
            reference=self.towards,
            cost_of=self.cost_of,
            quantizer=self.quantizer,
            input_shape=setting.shapes,
            walk=setting.walk,
            learn=self.learn,
            activations=self.storing.learned(setting),
            rotate=self.rotate,
        )
        return changed(step, model)

    def _step(self, setting: Setting) -> Pass:
        """By the weights alone: rounding, analytical clipping, or as a plan says."""
        if self.plan is not None and self.method in METHODS and self.method != "nearest":
            raise OptionError(f"a plan has its codes: method {self.method} does not go with it")
        if self.method == "aciq" and self.policy is not None:
            raise OptionError("method aciq allots bits itself; leave the policy out")
        if self.method != "nearest":
            check_method(self.method, self.bits, self.target_cost)
        rounding = Quantize(
            bits=self.bits,
            target_cost=self.target_cost,
            plan=self.plan,
            policy=self.policy,
            only=setting.only,
            exclude=setting.exclude,
            reference=self.cost_of,
            input_shape=setting.shapes,
            quantizer=self.quantizer,
        )
        if self.method != "aciq":
            return QuantizeToBudget(rounding, setting.shapes)
        return Aciq(
            self.bits,
            self.target_cost,
            setting.exclude,
            setting.only,
            self.cost_of,
            setting.shapes,
            self.quantizer,
        )

    def _consequences(
        self, model: onnx.ModelProto, result: PassResult, setting: Setting
    ) -> PassResult:
        """Remove filters of 0 bits, and recalibrate, but for aciq, which images do not change."""
        zero = RemoveZeroFilters(setting.shapes)(result.model)
        details = dict(result.details)
        skipped = list(result.skipped)
        if zero.modified:
            details |= {
                "removed_filters": zero.details["filters_removed"],
                "macs_after": zero.details["macs_after"],
            }
            skipped += [s for s in zero.skipped if ON_AVERAGE in s.reason]
        final = zero.model
        if setting.images is not None and self.method != "aciq":
            back = setting.recalibrate(self.towards)(final)
            final = back.model
            skipped += back.skipped
            details["recalibration"] = dict(back.details)
        modified = result.modified or final != model
        return PassResult(final, modified, tuple(skipped), result.plan, details)
