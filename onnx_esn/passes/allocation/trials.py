"""Compress to a budget in several ways, and keep the one that the outputs on other images favour.

The expected losses of channels and of bits are measured separately, and how they add up is only
roughly known. So a few splits of the budget between pruning and bits are carried out (`EFFORTS`:
what a channel's loss counts against a bit's), each is judged by the divergence of its outputs from
the float model's on images that were not used for it, and the best is done again with all images.
Nothing that is decided before may have seen those that judge: with the moments of all of them,
channels that go seemed cheaper on them than on any others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import BudgetError
from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.quantizers import MID_RISE, QUANTIZERS
from onnx_esn.passes.allocation.bit_plan import bit_plan
from onnx_esn.passes.allocation.efforts import (
    EFFORTS,
    NEEDED,
    NO_PRUNING,
    check_effort,
    judging_images,
)
from onnx_esn.passes.allocation.joint import Decision, decide
from onnx_esn.passes.allocation.measuring import (
    Losses,
    measure_losses,
    with_all_images,
    without_second_moments,
)
from onnx_esn.passes.allocation.removal import remove_classes
from onnx_esn.passes.allocation.trial import Trial, best_of
from onnx_esn.passes.correcting.output_divergence import judge_outputs
from onnx_esn.passes.layers.costs import InputShape, total_cost
from onnx_esn.passes.layerwise.observation import Observation, observe
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.quantizing.compensation import Compensate

log = logging.getLogger(__name__)
Integers = npt.NDArray[np.int64]
Samples = npt.NDArray[np.intp]


@dataclass(frozen=True)
class TrialOptions:
    """What to try, and within which limits.

    Attributes:
        effort: key of `EFFORTS`.
        bits: the same bits for every filter, so that only widths are chosen.
        prune: whether channels may go.
        only, exclude, round_to, min_width: see `Prune`.
        most_bits: no filter gets more, where bits are to be decided.
        quantizer: name of the grid.
        input_shape: sizes of dynamic axes.
        walk: how to gather statistics.
    """

    effort: str = "balanced"
    bits: int | None = None
    prune: bool = True
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    round_to: int = 1
    min_width: int = 1
    most_bits: int = MAX_BITS
    quantizer: str = MID_RISE.name
    input_shape: InputShape | None = None
    walk: WalkOptions = field(default_factory=WalkOptions)

    def __post_init__(self) -> None:
        check_effort(self.effort)


def compress_to(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    images: CalibrationSet,
    budget: float,
    options: TrialOptions,
) -> tuple[Trial, tuple[Trial, ...]]:
    """Meet a budget of ESN'_d (MAC·bit).

    Args:
        model: in standard form.
        reference: the float model whose outputs are wanted.
        images: the calibration set.
        budget: what the result may cost.
        options: see there.

    Returns:
        The best way, and all that were tried.

    Raises:
        BudgetError: no way meets the budget.
        OnnxEsnError: the model or the images do not fit.
    """
    return _Search(model, reference, images, options).run(budget)


class _Search:
    def __init__(
        self,
        model: onnx.ModelProto,
        reference: onnx.ModelProto,
        images: CalibrationSet,
        options: TrialOptions,
    ) -> None:
        self.model, self.reference, self.images = model, reference, images
        self.options = options
        self.held = judging_images(images, options.effort, prune=options.prune)
        self.views = options.walk.views_of(images, self.held)
        self.seen: Observation | None = None  # of the reference

    def run(self, budget: float) -> tuple[Trial, tuple[Trial, ...]]:
        options = self.options
        losses, decisions = self._decided(budget)
        final = self._with_all_images(losses, decisions, budget)
        losses = without_second_moments(losses)  # which are large
        self.seen = self._reference_seen(losses)
        if len(decisions) < 2 or not self.held:
            # Without pruning, if that can be.
            trial = self._carry_out(losses, *final[0])
            trial = replace(trial, kept=True)
            return trial, (trial,)
        judging = self.views.all_views_of(self.held)
        fitted = np.setdiff1d(np.arange(len(self.views)), judging)
        held = self.images.subset(self.held)
        trials = [self._carry_out(losses, s, d, fitted) for s, d in decisions]
        models = [trial.quantization.model for trial in trials]
        judged = judge_outputs(
            self.reference,
            models,
            held,
            batch_size=options.walk.batch_size,
            threads=options.walk.threads,
        )
        best = best_of(trials, judged, len(held))
        trials = [
            replace(trial, divergence=found.value, kept=i == best)
            for i, (trial, found) in enumerate(zip(trials, judged, strict=True))
        ]
        log.info("trials: %s; the best is %d", [t.to_document() for t in trials], best)
        done = self._carry_out(losses, *final[best])
        return replace(done, divergence=judged[best].value), tuple(trials)

    def _with_all_images(
        self, losses: Losses, decisions: Sequence[tuple[float, Decision]], budget: float
    ) -> list[tuple[float, Decision]]:
        """What each will be if it is kept: where it is about bits alone, all images decide."""
        found = list(decisions)
        for i, (scale, _) in enumerate(decisions):
            if not math.isfinite(scale) and self.options.bits is None:
                every = with_all_images(losses, QUANTIZERS[self.options.quantizer])
                found[i] = scale, self._decide(every, budget, scale)
        return found

    def _decided(self, budget: float) -> tuple[Losses, list[tuple[float, Decision]]]:
        """What everything would lose, and what to try."""
        options = self.options
        scales = EFFORTS[options.effort].scales if options.prune else (NO_PRUNING,)
        if options.prune and options.bits is not None and not any(map(math.isfinite, scales)):
            scales = NEEDED  # only widths are chosen
        prune = any(map(math.isfinite, scales))
        losses = self._losses(prune)
        try:
            return losses, self._decisions(losses, budget, scales)
        except BudgetError:
            if prune or not options.prune:
                raise
        losses = self._losses(True)
        return losses, self._decisions(losses, budget, NEEDED)

    def _losses(self, prune: bool) -> Losses:
        options = self.options
        return measure_losses(
            self.model,
            self.views,
            passes=EFFORTS[options.effort].passes,
            only=options.only,
            exclude=options.exclude,
            input_shape=options.input_shape,
            quantizer=QUANTIZERS[options.quantizer],
            prune=prune,
            quantize=options.bits is None,
            options=options.walk,
            held=self.held,
        )

    def _decisions(
        self, losses: Losses, budget: float, scales: Sequence[float]
    ) -> list[tuple[float, Decision]]:
        """What to try, by scale; each way of pruning once."""
        found: list[tuple[float, Decision]] = []
        failed: BudgetError | None = None
        for scale in scales:
            try:
                decision = self._decide(losses, budget, scale)
            except BudgetError as error:  # without pruning, say
                failed = error
                continue
            if not any(np.array_equal(decision.gone, d.gone) for _, d in found):
                found.append((scale, decision))
        if not found:
            assert failed is not None
            raise failed
        return found

    def _decide(self, losses: Losses, budget: float, scale: float) -> Decision:
        options = self.options
        return decide(
            losses,
            budget,
            bits=options.bits,
            prune_scale=scale,
            round_to=options.round_to,
            min_width=options.min_width,
            most_bits=options.most_bits if options.bits is None else MAX_BITS,
            quantizer=QUANTIZERS[options.quantizer],
        )

    def _reference_seen(self, losses: Losses) -> Observation:
        """The reference's outputs, once for all trials."""
        if self.reference is self.model or self.reference == self.model:
            return losses.seen
        names = set(losses.seen.layers)
        return observe(self.reference, self.views, names, self.options.walk, inputs=False)

    def _carry_out(
        self, losses: Losses, scale: float, decision: Decision, samples: Samples | None = None
    ) -> Trial:
        assert self.seen is not None
        images, taken = self.views, self.seen.taken
        if samples is not None:
            images, taken = images.subset(samples), self.seen.part(samples)
        model, pruning = self.model, None
        left: dict[str, Integers] = {}
        if decision.gone.size:
            pruning, left = remove_classes(losses.analysis, decision.gone, losses.moments)
            model = pruning.model
        options = self.options
        plan = bit_plan(
            model,
            decision.bits,
            left,
            exclude=options.exclude,
            quantizer=QUANTIZERS[options.quantizer],
            input_shape=options.input_shape,
        )
        compensate = Compensate(plan, images, self.reference, options.walk, taken)
        quantization = compensate(model)
        cost = total_cost(quantization.model, input_shape=options.input_shape)
        return Trial(scale, pruning, quantization, cost)
