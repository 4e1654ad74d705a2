"""`quantize` with images: bits decided on measured losses, codes that make errors good."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import ModelError, OptionError
from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.passes.activations.quantizing import QuantizeActivations
from onnx_esn.passes.allocation.efforts import check_effort
from onnx_esn.passes.allocation.trials import TrialOptions, compress_to
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.correcting.recalibration import Recalibrate
from onnx_esn.passes.layers.costs import cost_target
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.learning.judging import split_to_judge
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.quantized_weights import LearnQuantization
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.passes.quantizing.compensation import Compensate
from onnx_esn.passes.quantizing.quantization import Quantize, quantization_details
from onnx_esn.passes.rotating.rotation import Rotate, rotation
from onnx_esn.plans import QuantizationPlan
from onnx_esn.plans.bit_policy import BitPolicy

log = logging.getLogger(__name__)
Stage = tuple[str, PassResult]


@dataclass(frozen=True)
class CompensatedQuantization:
    """Quantize on images, and prune where that is part of the budget.

    `details` of the stage "quantize": those of `Quantize`, `compensated_layers`, `images` and
    `views` of each, and with a budget `effort`, `divergence` (on images held out from the trials,
    or None) and `trials`.

    Attributes:
        images: the calibration set.
        bits: 1 … 8 for every filter; beside `target_cost` only widths are chosen.
        target_cost: ESN'_d to meet: `1.2G` MAC·bit, or a percentage of `cost_of`'s.
        policy: or else bits per layer, see `Quantize`.
        prune: whether a budget may be met by removing channels too.
        effort: key of `EFFORTS`: what is tried to meet a budget.
        only, exclude, round_to, min_width: see `Prune`; patterns also say what is quantized.
        reference: the float model whose outputs are wanted; None: the input model.
        cost_of: the model that a percentage refers to; None: the input model.
        most_bits: no filter gets more of a budget.
        quantizer: name of the grid.
        input_shape: sizes of dynamic axes, by input.
        walk: how to gather statistics.
        learn: how to learn codes, steps and biases from there (`LearnQuantization`); None: not.
        teacher: the model whose outputs are then wanted; None: the reference.
        activations: how the activations will be quantized, where their ranges are to be learned.
        rotate: whether linear tensors are brought into another basis first (`Rotate`), those of
            the reference and the teacher with them.
    """

    images: CalibrationSet
    bits: int | None = None
    target_cost: Target | str | float | None = None
    prune: bool = False
    effort: str = "balanced"
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    round_to: int = 1
    min_width: int = 1
    most_bits: int = MAX_BITS
    reference: onnx.ModelProto | None = None
    cost_of: onnx.ModelProto | None = None
    quantizer: str = MID_RISE.name
    input_shape: Mapping[str, Sequence[int]] | None = None
    walk: WalkOptions = field(default_factory=WalkOptions)
    policy: BitPolicy | str | Path | None = None
    learn: LearnOptions | None = None
    teacher: onnx.ModelProto | None = None
    activations: QuantizeActivations | None = None
    rotate: bool = True

    def __post_init__(self) -> None:
        if self.bits is None and self.target_cost is None and self.policy is None:
            raise OptionError("say how to quantize: bits or target_cost")
        check_effort(self.effort)
        # What `Quantize` refuses is refused here, before any work.
        given: dict[str, Any] = {"bits": self.bits, "policy": self.policy}
        if self.target_cost is not None and self.bits is None:
            given["target_cost"] = self.target_cost
        Quantize(**given, quantizer=self.quantizer)
        if self.target_cost is not None:
            parse_target(self.target_cost)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Quantize; the stages joined to one result, with the plan of the quantization."""
        stages = self.stages(model)
        by_name = dict(stages)
        skipped = tuple(dict.fromkeys(s for _, result in stages for s in result.skipped))
        last, quantized = stages[-1][1].model, by_name["quantize"]
        details = {**quantized.details}
        if "rotate" in by_name:
            details |= by_name["rotate"].details
        return PassResult(last, last != model, skipped, quantized.plan, details)

    def stages(self, model: onnx.ModelProto) -> list[Stage]:
        """Prune (where that is part of it), quantize, and what that makes necessary.

        Args:
            model: in standard form.

        Raises:
            BudgetError: the budget is below the smallest cost that can be reached.
            OnnxEsnError: an option or the images do not fit, or the model does not run.
        """
        if self.rotate:
            return self._rotated(model)
        if self.learn is not None:
            return self._learned(model, self.learn)
        reference = self.reference or model
        if self.target_cost is None:
            stages = [("quantize", self._uniform(model, reference))]
        else:
            stages = self._to_budget(model, reference)
        return stages + self._consequences(stages[-1][1], reference)

    def _rotated(self, model: onnx.ModelProto) -> list[Stage]:
        turn = Rotate(only=self.only, exclude=self.exclude, input_shape=self.input_shape)
        plain = replace(self, rotate=False)
        reference, teacher = self.reference or model, self.teacher or self.reference or model
        distinct = {id(x): x for x in (reference, teacher) if x is not model}
        try:
            rotated, others = turn.beside(model, *distinct.values())
        except ModelError as error:  # what can do without its sizes shall
            log.info("not rotated: %s", error)
            return plain.stages(model)
        if not rotated.modified:
            return plain.stages(model)
        turned = {id(model): rotated.model, **dict(zip(distinct, others, strict=True))}
        if self.walk.known is not None:
            self.walk.known.is_of(turned[id(reference)])
        plain = replace(
            plain,
            reference=turned[id(reference)],
            teacher=None if self.teacher is None else turned[id(teacher)],
            cost_of=self.cost_of or model,
        )
        noted = rotation(turn, rotated)
        stages: list[Stage] = [("rotate", rotated)]
        for name, result in plain.stages(rotated.model):
            if isinstance(result.plan, QuantizationPlan):
                result = replace(result, plan=replace(result.plan, rotation=noted))
            stages.append((name, result))
        return stages

    def _consequences(self, quantized: PassResult, reference: onnx.ModelProto) -> list[Stage]:
        """What a quantization makes necessary."""
        stages: list[Stage] = []
        if quantized.details["pruned_filters"]:
            zero = RemoveZeroFilters(self.input_shape)(quantized.model)
            if zero.modified:
                stages.append(("remove zero filters", zero))
        if quantized.details["compensated_layers"] < quantized.details["quantized_layers"]:
            again = Recalibrate(
                self.images,
                reference=reference,
                batch_size=self.walk.batch_size,
                threads=self.walk.threads,
                progress=self.walk.progress,
            )
            last = stages[-1][1].model if stages else quantized.model
            stages.append(("recalibrate", again(last)))
        return stages

    def _learned(self, model: onnx.ModelProto, options: LearnOptions) -> list[Stage]:
        """Quantize, and learn from there.

        First on a part of the images: the others judge whether it helps, and for how many epochs.
        Then the same is done with all of them.
        """
        rest, held = split_to_judge(self.images, options.held_out)
        found = self._learn_on(rest, held, None, model, options)
        if held is None:
            return found
        judged = dict(found)["quantize"].details["learning"]
        if judged["accepted"]:
            done = self._learn_on(self.images, None, judged["best_epochs"], model, options)
        else:
            done = replace(self, learn=None).stages(model)
        return [(n, _with(r, learning=judged) if n == "quantize" else r) for n, r in done]

    def _learn_on(
        self,
        images: CalibrationSet,
        held: CalibrationSet | None,
        stops: Mapping[str, int] | None,
        model: onnx.ModelProto,
        options: LearnOptions,
    ) -> list[Stage]:
        reference = self.reference or model
        teacher = self.teacher or reference
        plain = replace(self, images=images, learn=None).stages(model)
        before = [(name, result) for name, result in plain if name in ("prune", "quantize")]
        quantized = before[-1][1]
        source = before[-2][1].model if len(before) > 1 else model
        assert isinstance(quantized.plan, QuantizationPlan)
        activations = self.activations and replace(self.activations, images=images)
        learn = LearnQuantization(
            quantized.plan, images, held, teacher, options, stops, activations
        )
        found = learn(source)
        figures = quantization_details(source, found.details["bits"], self.input_shape)
        changed = {key: figures[key] for key in ("cost_after", "mean_bits", "pruned_filters")}
        learning = {key: value for key, value in found.details.items() if key != "bits"}
        skipped = tuple(dict.fromkeys((*quantized.skipped, *found.skipped)))
        details = {**quantized.details, **changed, "learning": learning}
        learned = replace(found, skipped=skipped, details=details, modified=True)
        return [*before[:-1], ("quantize", learned), *self._consequences(learned, reference)]

    def _uniform(self, model: onnx.ModelProto, reference: onnx.ModelProto) -> PassResult:
        plain = Quantize(
            bits=self.bits,
            policy=self.policy,
            only=self.only,
            exclude=self.exclude,
            quantizer=self.quantizer,
            input_shape=self.input_shape,
        )(model)
        assert isinstance(plain.plan, QuantizationPlan)
        found = Compensate(plain.plan, self.images, reference, self.walk)(model)
        details = {
            **plain.details,
            **quantization_details(model, found.details["bits"], self.input_shape),
            "compensated_layers": found.details["compensated_layers"],
            **self._seen(),
            "damped_layers": found.details["damped_layers"],
        }
        skipped = (*plain.skipped, *found.skipped)
        return replace(found, skipped=skipped, details=details)

    def _seen(self) -> dict[str, int]:
        """How many images there were, in how many views each."""
        images = len(self.images)
        return {"images": images, "views": len(self.walk.views_of(self.images)) // images}

    def _to_budget(self, model: onnx.ModelProto, reference: onnx.ModelProto) -> list[Stage]:
        assert self.target_cost is not None
        shape = self.input_shape
        target, whole = cost_target(self.target_cost, self.cost_of or model, input_shape=shape)
        options = TrialOptions(
            effort=self.effort,
            bits=self.bits,
            prune=self.prune or self.bits is not None,
            only=self.only,
            exclude=self.exclude,
            round_to=self.round_to,
            min_width=self.min_width,
            most_bits=self.most_bits,
            quantizer=self.quantizer,
            input_shape=self.input_shape,
            walk=self.walk,
        )
        best, trials = compress_to(model, reference, self.images, target, options)
        source = model if best.pruning is None else best.pruning.model
        bits = best.quantization.details["bits"]
        details = {
            **quantization_details(source, bits, self.input_shape),
            "cost_before": whole,
            "target": target,
            "compensated_layers": best.quantization.details["compensated_layers"],
            **self._seen(),
            "damped_layers": best.quantization.details["damped_layers"],
            "effort": self.effort,
            "divergence": best.divergence,
            "trials": [trial.to_document() for trial in trials],
        }
        stages: list[Stage] = [("quantize", replace(best.quantization, details=details))]
        if best.pruning is not None:
            stages.insert(0, ("prune", best.pruning))
        return stages


def _with(result: PassResult, **details: Any) -> PassResult:
    """The same with more details."""
    return replace(result, details={**result.details, **details})
