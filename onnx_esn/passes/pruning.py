"""The pruning pass: score, choose, rewrite, absorb."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.budgets import Target, parse_target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError, PlanError, VerificationError
from onnx_esn.graph.channel_groups import Analysis, analyse, analyse_again
from onnx_esn.graph.channel_labels import Mask
from onnx_esn.graph.kept import KEPT_KEY as KEPT_KEY
from onnx_esn.graph.rewriting import RewriteError, Rewritten, rewrite
from onnx_esn.passes.absorption import MODES, consumed_tensors, fold_constants, varying_labels
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.measuring import measure_channels
from onnx_esn.passes.pruning_replay import planned_removal
from onnx_esn.passes.pruning_result import pruning_result
from onnx_esn.passes.pruning_scores import (
    CRITERIA,
    MEASURED,
    class_scores,
    unnormalized_outputs,
)
from onnx_esn.passes.pruning_selection import MacCounter, Selector
from onnx_esn.plans import PruningPlan, load_plan

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]

Locks = list[tuple[NDArray[np.int64], str]]

_TRIES = 200


@dataclass(frozen=True)
class Prune:
    """Remove filters and everything that was coupled to them.

    Exactly one of `ratio`, `target_macs` and `plan` says how much.

    Attributes:
        ratio: fraction of the prunable filters to remove, 0 ≤ ratio < 1.
        target_macs: MACs to reach from below: a number, "300M", or a percentage such as "50%".
        plan: a plan, or the path of one, to replay.
        criterion: what ranks the filters; a key of `pruning_scores.CRITERIA`.
        scope: "layer": the same share of every group; "global": all filters ranked together.
        round_to: widths of layers that lose filters become multiples of this.
        exclude: patterns of layers (node or weight name, * and ?) that keep all their filters.
        absorb: what removed channels still sent to their consumers: "none" drops it, "constant"
            takes over exactly constant channels, "mean" expected values.
        images: measure means, and variances where BatchNorm was folded, on these images; None:
            closed forms where there is BatchNorm.
        input_shapes: sizes of dynamic axes other than the batch, by input name.
        batch_size: images at a time when measuring.
    """

    ratio: float | None = None
    target_macs: str | float | Target | None = None
    plan: PruningPlan | str | Path | None = None
    criterion: str = "signal-norm"
    scope: str = "layer"
    round_to: int = 1
    exclude: Sequence[str] = ()
    absorb: str = "mean"
    images: CalibrationSet | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = field(default=None)
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if sum(x is not None for x in (self.ratio, self.target_macs, self.plan)) != 1:
            raise OptionError("say how much to prune: one of ratio, target_macs or plan")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio {self.ratio:g} is not a fraction: 0 ≤ ratio < 1")
        _among("criterion", self.criterion, CRITERIA)
        _among("scope", self.scope, ("layer", "global"))
        _among("absorb", self.absorb, MODES)
        if self.round_to < 1:
            raise OptionError(f"round_to must be at least 1, not {self.round_to}")

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Prune.

        Raises:
            OptionError: a pattern in `exclude` matches no layer.
            PlanError: the plan does not fit the model.
            BudgetError: `target_macs` cannot be reached.
        """
        analysis = analyse(model, shapes=self.input_shapes)
        if self.plan is not None:
            return _replay(analysis, load_plan(self.plan, PruningPlan))
        locks = _excluded(analysis, self.exclude)
        variances = self._variances(analysis)
        found = _rewrite_or_lock(analysis, locks, lambda a: self._choose(a, variances))
        analysis, removed, rewritten = found
        means = self._means(analysis, removed)
        folded, notes = fold_constants(analysis, removed, self.absorb, means)
        return pruning_result(analysis, removed, rewritten, folded, notes)

    def _choose(self, analysis: Analysis, variances: Mapping[str, Floats]) -> Mask:
        score, filters = class_scores(analysis, self.criterion, variances)
        selector = Selector(analysis, score, filters, self.scope, self.round_to)
        if self.ratio is not None:
            return selector.by_ratio(self.ratio)
        assert self.target_macs is not None
        target = parse_target(self.target_macs)
        nothing = np.zeros(analysis.classes.of.size, np.bool_)
        return selector.by_macs(target.resolve(MacCounter(analysis)(nothing)))

    def _variances(self, analysis: Analysis) -> Mapping[str, Floats]:
        if self.images is None or self.criterion not in MEASURED:
            return {}
        tensors = unnormalized_outputs(analysis)
        found = measure_channels(analysis.model, tensors, self.images, self.batch_size)
        return {name: m.variance for name, m in found.items()}

    def _means(self, analysis: Analysis, removed: Mask) -> Mapping[str, Floats] | None:
        if self.images is None or self.absorb != "mean" or not removed.any():
            return None
        tensors = consumed_tensors(analysis, removed)
        found = measure_channels(analysis.model, tensors, self.images, self.batch_size)
        return {name: m.mean for name, m in found.items()}


@dataclass(frozen=True)
class RemoveZeroFilters:
    """Remove channels that only all-zero filters make; their constants go to the consumers.

    Lossless where no zero padding meets such a constant; where it does, it is reported.
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Remove them."""
        start = analyse(model, shapes=self.input_shapes)
        locks = [(labels, _NOT_CONSTANT) for labels in varying_labels(start)]
        found = _rewrite_or_lock(start, locks, _zero_classes)
        analysis, removed, rewritten = found
        if not removed.any():
            return PassResult(model, False)
        folded, notes = fold_constants(analysis, removed, "constant")
        return pruning_result(analysis, removed, rewritten, folded, notes)


_NOT_CONSTANT = "its filters are all zero, but what becomes of them depends on the data"


def _zero_classes(analysis: Analysis) -> Mask:
    score, filters = class_scores(analysis, "l1-norm")
    score = np.where(score == 0, 0.0, np.inf)
    return Selector(analysis, score, filters, "global", 1).by_ratio(1.0)


def _rewrite_or_lock(
    analysis: Analysis, locks: Locks, choose: Callable[[Analysis], Mask]
) -> tuple[Analysis, Mask, Rewritten]:
    """Choose classes and rewrite; where the graph cannot follow, lock those labels, choose again.

    Returns:
        The analysis with all locks, per label whether it goes, and the rewritten model.
    """
    locks = list(locks)
    for _ in range(_TRIES):
        analysis = analyse_again(analysis, locks) if locks else analysis
        removed = analysis.removed_labels(choose(analysis))
        try:
            return analysis, removed, rewrite(analysis, removed)
        except RewriteError as error:
            log.info("locked: %s", error.reason)
            locks.append((error.labels, error.reason))
    raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")


def _replay(analysis: Analysis, plan: PruningPlan) -> PassResult:
    removed = planned_removal(analysis, plan)
    try:
        rewritten = rewrite(analysis, removed)
    except RewriteError as error:
        raise PlanError(f"the plan cannot be carried out: {error.reason}") from error
    return pruning_result(analysis, removed, rewritten, plan.folded_constants, ())


def _among(what: str, value: str, allowed: Mapping[str, object] | Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(f"{what} {value!r} is not one of {', '.join(allowed)}")


def _excluded(analysis: Analysis, patterns: Sequence[str]) -> list[tuple[NDArray[np.int64], str]]:
    layers = analysis.layers
    first = analysis.first_labels
    locks = []
    for pattern in patterns:
        hits = [
            x
            for x in layers
            if any(fnmatch.fnmatchcase(n, pattern) for n in (x.name, x.weight, x.source))
        ]
        if not hits:
            names = [n for x in layers for n in (x.name, x.weight)]
            close = difflib.get_close_matches(pattern.strip("*"), names, 3, 0.3)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise OptionError(f"exclude pattern {pattern!r} matches no layer{hint}")
        for x in hits:
            if x.index in first:
                start = first[x.index]
                locks.append((np.arange(start, start + x.filters), f"excluded by {pattern!r}"))
    return locks
