"""The pruning pass: score, choose, rewrite, absorb."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.budgets import Target, parse_target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import Analysis, analyse
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.rewrite.kept import KEPT_KEY as KEPT_KEY
from onnx_esn.passes.absorption import MODES, consumed_tensors, fold_constants, varying_labels
from onnx_esn.passes.allocation.channel_choice import (
    channel_losses,
    class_losses,
    classes_to_target,
)
from onnx_esn.passes.allocation.joint import Losses
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.consistent_rewriting import rewrite_or_lock
from onnx_esn.passes.measuring import measure_channels
from onnx_esn.passes.pruning_replay import replay
from onnx_esn.passes.pruning_result import joined, pruning_result
from onnx_esn.passes.pruning_scores import (
    CRITERIA,
    MEASURED,
    class_scores,
    unnormalized_outputs,
)
from onnx_esn.passes.pruning_selection import MacCounter, Selector
from onnx_esn.passes.pruning_widths import check_widths
from onnx_esn.passes.selection.options import QCQP, SELECTIONS, absolute, check_selection
from onnx_esn.passes.selection.program import Selection, select
from onnx_esn.passes.selection.targets import Targets
from onnx_esn.passes.steering import group_ratios, locked_layers
from onnx_esn.plans import PruningPlan, PruningRatios, load_pruning
from onnx_esn.plans.latency_model import LatencyModel

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]

RECONSTRUCTION = "reconstruction"


@dataclass(frozen=True)
class Prune:
    """Remove filters and everything that was coupled to them.

    One of `ratio`, `target_macs` and `plan` says how much, or any of the targets with selection
    "qcqp"; `exact` alone removes only what costs nothing.

    Attributes:
        ratio: fraction of the prunable filters to remove, 0 ≤ ratio < 1.
        target_macs: MACs to reach from below: a number, "300M", or a percentage such as "50%".
        plan: a plan to replay, or `PruningRatios` to follow, or the path of either. `ratio` may
            stand beside ratios that have no default.
        criterion: what ranks the filters; a key of `pruning_scores.CRITERIA`, or "reconstruction":
            what the outputs lose once the readers are refitted (needs images).
        scope: "layer": the same share of every group; "global": all filters ranked together. None:
            "layer", but "global" for a target of MACs by reconstruction.
        round_to: widths of layers that lose filters become multiples of this.
        min_width: filters that every layer keeps; one that has fewer keeps all.
        only: patterns of layers (node or weight name, * and ?); if any, what matches none of them
            keeps all its filters, and so does what is tied to it.
        exclude: patterns of layers that keep all their filters.
        exact: first remove what costs nothing (see `RemoveRedundant`), within the same limits; a
            ratio then speaks of what is left, a target still of the input model.
        absorb: what removed channels still sent to their consumers: "none" drops it, "constant"
            takes over exactly constant channels, "mean" expected values.
        selection: "ranked": by criterion and scope; "qcqp": the channels that are worth most
            together within all targets, see `onnx_esn.passes.selection`.
        target_params, target_memory, target_latency, latency_model: further targets of selection
            "qcqp", see `onnx_esn.passes.selection.targets.Targets`.
        solver_time: seconds that its search may take.
        images: measure means, and variances where BatchNorm was folded, on these images; None:
            closed forms where there is BatchNorm.
        input_shapes: sizes of dynamic axes other than the batch, by input name.
        batch_size: images at a time when measuring.
    """

    ratio: float | None = None
    target_macs: str | float | Target | None = None
    plan: PruningPlan | PruningRatios | str | Path | None = None
    criterion: str = "signal-norm"
    scope: str | None = None
    round_to: int = 1
    min_width: int = 1
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    exact: bool = False
    absorb: str = "mean"
    selection: str = "ranked"
    target_params: str | float | Target | None = None
    target_memory: str | float | Target | None = None
    target_latency: str | float | Target | None = None
    latency_model: LatencyModel | str | Path | None = None
    solver_time: float = 60.0
    images: CalibrationSet | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = field(default=None)
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        _among("selection", self.selection, SELECTIONS)
        targets = self.targets()
        check_selection(
            self.selection,
            targets,
            ratio=self.ratio,
            plan=self.plan,
            criterion=self.criterion,
            scope=self.scope,
            solver_time=self.solver_time,
        )
        given = [x is not None for x in (self.ratio, targets.given or None, self.plan)]
        ratio_and_plan = given == [True, False, True]  # which `_followed` looks into
        if (sum(given) > 1 and not ratio_and_plan) or (not any(given) and not self.exact):
            raise OptionError("say how much to prune: one of ratio, target_macs or plan")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio {self.ratio:g} is not a fraction: 0 ≤ ratio < 1")
        _among("criterion", self.criterion, (*CRITERIA, RECONSTRUCTION))
        if self.scope is not None:
            _among("scope", self.scope, ("layer", "global"))
        _among("absorb", self.absorb, MODES)
        check_widths(self.round_to, self.min_width)

    def targets(self) -> Targets:
        """All targets."""
        return Targets(
            self.target_macs,
            self.target_params,
            self.target_memory,
            self.target_latency,
            self.latency_model,
        )

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Prune.

        Raises:
            OptionError: a pattern matches no layer, or options do not go together.
            PlanError: the plan does not fit the model.
            BudgetError: a target cannot be reached.
        """
        plan = None if self.plan is None else load_pruning(self.plan)
        if isinstance(plan, PruningPlan):
            self._refuse_beside_a_plan()
            return replay(model, plan, self.input_shapes)
        ratios = None if plan is None else self._followed(plan)
        if self.exact:
            return self._after_exact(model)
        analysis = analyse(model, shapes=self.input_shapes)
        locks = locked_layers(analysis, self.only, self.exclude)
        known, solved = self._measured(analysis, model), list[Selection]()
        found = rewrite_or_lock(analysis, locks, lambda a: self._choose(a, known, ratios, solved))
        analysis, removed, rewritten = found
        means = self._means(analysis, removed)
        folded, notes = fold_constants(analysis, removed, self.absorb, means)
        if ratios is not None:
            notes = (*group_ratios(analysis, ratios)[1], *notes)
        result = pruning_result(analysis, removed, rewritten, folded, notes)
        if solved:
            result = replace(result, details={**result.details, "selection": solved[-1].report})
        return result

    def _refuse_beside_a_plan(self) -> None:
        """A plan says all there is to say."""
        asked = {
            "ratio": self.ratio is not None,
            "only": bool(self.only),
            "exclude": bool(self.exclude),
            "round_to": self.round_to > 1,
            "min_width": self.min_width > 1,
            "exact": self.exact,
        }
        for name in (name for name, given in asked.items() if given):
            raise OptionError(f"{name} does not go with a plan that is replayed: edit the plan")

    def _after_exact(self, model: onnx.ModelProto) -> PassResult:
        """Remove what costs nothing, then prune what is left."""
        from onnx_esn.passes.exact.redundant import RemoveRedundant

        limits = self.round_to, self.min_width, self.only, self.exclude
        first = RemoveRedundant(self.input_shapes, *limits)(model)
        ratio, target = self.ratio, self.target_macs
        if target is not None:  # a percentage speaks of the input model
            target = Target(parse_target(target).resolve(first.details["macs_before"]))
        elif ratio is None and self.plan is None:
            ratio = 0.0
        if self.selection == QCQP:
            targets = absolute(self.targets(), model, self.input_shapes)
            rest = replace(self, exact=False, **targets)
        else:
            rest = replace(self, exact=False, ratio=ratio, target_macs=target)
        result = joined(first, rest(first.model))
        return replace(result, details={**result.details, "exact": dict(first.details)})

    def _followed(self, plan: PruningRatios) -> PruningRatios:
        """The ratios with their default."""
        if self.scope == "global":
            raise OptionError("scope 'global' does not go with ratios for single layers")
        if self.ratio is None:
            return plan
        if plan.default is not None:
            raise OptionError(
                f"the ratios have a default, {plan.default:g}; leave out that or ratio"
            )
        return replace(plan, default=self.ratio)

    def _choose(
        self,
        analysis: Analysis,
        known: Mapping[str, Floats] | Losses,
        ratios: PruningRatios | None,
        solved: list[Selection],
    ) -> Mask:
        """Per class, whether it goes; a program that was solved is added to `solved`."""
        if self.selection == QCQP and isinstance(known, Mapping):
            selection = select(
                analysis,
                self.targets(),
                round_to=self.round_to,
                min_width=self.min_width,
                seconds=self.solver_time,
                variances=known,
            )
            solved.append(selection)
            return solved[-1].removed
        target = self.target_macs
        if target is not None:
            nothing = np.zeros(analysis.classes.of.size, np.bool_)
            macs = parse_target(target).resolve(MacCounter(analysis)(nothing))
        if isinstance(known, Mapping):
            score, filters = class_scores(analysis, self.criterion, known)
        else:
            if target is not None and self.scope != "layer":
                return classes_to_target(known, analysis, macs, self.round_to, self.min_width)
            score, filters = class_losses(known, analysis), _counts(analysis)
        limits = self.scope or "layer", self.round_to, self.min_width
        selector = Selector(analysis, score, filters, *limits)
        if ratios is not None:
            return selector.by_group_ratios(group_ratios(analysis, ratios)[0])
        if self.ratio is not None:
            return selector.by_ratio(self.ratio)
        return selector.by_macs(macs)

    def _measured(
        self, analysis: Analysis, model: onnx.ModelProto
    ) -> Mapping[str, Floats] | Losses:
        """What the criterion takes from images: variances of outputs, or losses."""
        if self.criterion == RECONSTRUCTION:
            if self.images is None:
                raise OptionError("criterion reconstruction needs images (--images)")
            return channel_losses(
                model,
                self.images,
                only=self.only,
                exclude=self.exclude,
                shapes=self.input_shapes,
                batch_size=self.batch_size,
            )
        if self.images is None or self.criterion not in MEASURED:
            return {}
        tensors = unnormalized_outputs(analysis)
        found = measure_channels(analysis.executable, tensors, self.images, self.batch_size)
        return {name: m.variance for name, m in found.items()}

    def _means(self, analysis: Analysis, removed: Mask) -> Mapping[str, Floats] | None:
        if self.images is None or self.absorb != "mean" or not removed.any():
            return None
        tensors = consumed_tensors(analysis, removed)
        found = measure_channels(analysis.executable, tensors, self.images, self.batch_size)
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
        found = rewrite_or_lock(start, locks, _zero_classes)
        analysis, removed, rewritten = found
        if not removed.any():
            return PassResult(model, False)
        folded, notes = fold_constants(analysis, removed, "constant")
        return pruning_result(analysis, removed, rewritten, folded, notes)


_NOT_CONSTANT = "its filters are all zero, but what becomes of them depends on the data"


def _counts(analysis: Analysis) -> Floats:
    """Filters of each class."""
    return class_scores(analysis, "l1-norm", ranking=False)[1]


def _zero_classes(analysis: Analysis) -> Mask:
    score, filters = class_scores(analysis, "l1-norm", ranking=False)
    score = np.where(score == 0, 0.0, np.inf)
    return Selector(analysis, score, filters, "global", 1).by_ratio(1.0)


def _among(what: str, value: str, allowed: Mapping[str, object] | Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(f"{what} {value!r} is not one of {', '.join(allowed)}")
