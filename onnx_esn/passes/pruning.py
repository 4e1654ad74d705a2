"""The pruning pass: score, choose, rewrite, absorb."""

from __future__ import annotations

import difflib
import fnmatch
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.budgets import Target, parse_target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError, PlanError, VerificationError
from onnx_esn.graph.bias import add_to_biases
from onnx_esn.graph.channel_groups import Analysis, analyse
from onnx_esn.graph.channel_labels import Mask
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.rewriting import RewriteError, Rewritten, rewrite
from onnx_esn.graph.shapes import node_name
from onnx_esn.graph.slicing import claimed_sources
from onnx_esn.passes.absorption import MODES, consumed_tensors, fold_constants
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.measuring import measure_channels
from onnx_esn.passes.pruning_scores import (
    CRITERIA,
    MEASURED,
    class_scores,
    unnormalized_outputs,
)
from onnx_esn.passes.pruning_selection import MacCounter, Selector
from onnx_esn.plans import FoldedConstant, GroupEntry, PruningPlan, SliceEntry, load_plan

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]

KEPT_KEY = "onnx_esn.kept"
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
        if self.plan is not None:
            return _replay(model, load_plan(self.plan, PruningPlan), self.input_shapes)
        locks: list[tuple[NDArray[np.int64], str]] = []
        analysis = analyse(model, shapes=self.input_shapes)
        locks += _excluded(analysis, self.exclude)
        variances = self._variances(analysis)
        for _ in range(_TRIES):
            if locks:
                analysis = analyse(model, shapes=self.input_shapes, locks=locks)
            removed = analysis.removed_labels(self._choose(analysis, variances))
            try:
                rewritten = rewrite(analysis, removed)
            except RewriteError as error:
                log.info("locked: %s", error.reason)
                locks.append((error.labels, error.reason))
                continue
            folded, notes = fold_constants(
                analysis, removed, self.absorb, self._means(analysis, removed)
            )
            return _result(analysis, removed, rewritten, folded, notes)
        raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")

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
        locks: list[tuple[NDArray[np.int64], str]] = []
        for _ in range(_TRIES):
            analysis = analyse(model, shapes=self.input_shapes, locks=locks)
            score, filters = class_scores(analysis, "l1-norm")
            score = np.where(score == 0, 0.0, np.inf)
            selector = Selector(analysis, score, filters, "global", 1)
            removed = analysis.removed_labels(selector.by_ratio(1.0))
            if not removed.any():
                return PassResult(model, False)
            try:
                rewritten = rewrite(analysis, removed)
            except RewriteError as error:
                locks.append((error.labels, error.reason))
                continue
            folded, notes = fold_constants(analysis, removed, "constant")
            return _result(analysis, removed, rewritten, folded, notes)
        raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")


def _among(what: str, value: str, allowed: Mapping[str, object] | Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(f"{what} {value!r} is not one of {', '.join(allowed)}")


def _excluded(analysis: Analysis, patterns: Sequence[str]) -> list[tuple[NDArray[np.int64], str]]:
    layers = find_layers(analysis.model, analysis.constants, analysis.facts)
    first = analysis.first_labels()
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


def _replay(
    model: onnx.ModelProto, plan: PruningPlan, shapes: Mapping[str, Sequence[int]] | None
) -> PassResult:
    analysis = analyse(model, shapes=shapes)
    removed = _planned(analysis, plan)
    try:
        rewritten = rewrite(analysis, removed)
    except RewriteError as error:
        raise PlanError(f"the plan cannot be carried out: {error.reason}") from error
    return _result(analysis, removed, rewritten, plan.folded_constants, ())


def _planned(analysis: Analysis, plan: PruningPlan) -> Mask:
    """Labels that a plan removes, closed under coupling; raises `PlanError`."""
    sources = claimed_sources(analysis)
    classes = analysis.classes
    gone = np.zeros(len(classes), np.bool_)
    for entry in plan.slices:
        where = f"axis {entry.axis} of {entry.tensor!r}"
        claims = sources.get((entry.tensor, entry.axis))
        if not claims:
            known = [t for t, _ in sources]
            close = difflib.get_close_matches(entry.tensor, known, 3)
            hint = f"; close names: {', '.join(dict.fromkeys(close))}" if close else ""
            raise PlanError(f"plan: {where} is not a channel axis of this model{hint}")
        for reader, labels in claims:
            if entry.users and reader not in entry.users:
                continue
            wrong = [i for i in entry.removed if i >= labels.size]
            if wrong:
                raise PlanError(f"plan: index {wrong[0]} is outside {where}, size {labels.size}")
            of = classes.of[labels[list(entry.removed)]]
            if (of < 0).any():
                raise PlanError(f"plan: {where} reads channels that cannot be removed")
            for c in of[classes.locked[of]]:
                raise PlanError(f"plan: {where} cannot be sliced: {classes.reasons[c]}")
            gone[of] = True
    for members in analysis.constraints():
        if gone[members].all():
            raise PlanError("plan: a tensor would lose all of its channels; keep at least one")
    return analysis.removed_labels(gone)


def _result(
    analysis: Analysis,
    removed: Mask,
    rewritten: Rewritten,
    folded: Sequence[FoldedConstant],
    notes: Sequence[Skipped],
) -> PassResult:
    counter = MacCounter(analysis)
    nothing = np.zeros(removed.size, np.bool_)
    gone = np.append(np.zeros(len(analysis.classes), np.bool_), False)
    gone[analysis.classes.of[removed]] = True
    groups = tuple(
        GroupEntry(
            g.name,
            tuple(m.node for m in g.members),
            g.width,
            g.width - int(gone[g.classes].sum()),
            g.reason,
        )
        for g in analysis.groups
    )
    slices = tuple(SliceEntry(s.tensor, s.axis, s.removed, s.users) for s in rewritten.slices)
    plan = PruningPlan(slices, groups, tuple(folded))
    model = analysis.model
    if removed.any():
        model = _with_biases(analysis, rewritten.model, removed, folded)
        model = _remember(analysis, model, removed)
    skipped = [Skipped(g.name, g.reason) for g in analysis.groups if g.reason]
    skipped += [Skipped(b.node, b.reason) for b in analysis.propagation.barriers]
    skipped += notes
    first = analysis.first_labels()
    layers = [
        x
        for x in find_layers(analysis.model, analysis.constants, analysis.facts)
        if x.index in first
    ]
    lost = sum(int(removed[first[x.index] : first[x.index] + x.filters].sum()) for x in layers)
    details = {
        "filters_before": sum(x.filters for x in layers),
        "filters_removed": lost,
        "macs_before": counter(nothing),
        "macs_after": counter(removed),
    }
    return PassResult(model, bool(removed.any()), tuple(skipped), plan, details)


def _with_biases(
    analysis: Analysis, model: onnx.ModelProto, removed: Mask, folded: Sequence[FoldedConstant]
) -> onnx.ModelProto:
    first = analysis.first_labels()
    layers = {x.name: x for x in find_layers(analysis.model, analysis.constants, analysis.facts)}
    deltas = {}
    for entry in folded:
        layer = layers.get(entry.node)
        if layer is None:
            raise PlanError(f"plan: no layer is called {entry.node!r}")
        start = first.get(layer.index, 0)
        left = layer.filters - int(removed[start : start + layer.filters].sum())
        if len(entry.bias) != left:
            raise PlanError(
                f"plan: folded constant of {entry.node!r} has {len(entry.bias)} numbers for "
                f"{left} filters; remove the entry to drop the constant"
            )
        deltas[layer.output] = np.array(entry.bias)
    return add_to_biases(model, deltas)


def _remember(analysis: Analysis, model: onnx.ModelProto, removed: Mask) -> onnx.ModelProto:
    """Record which of the original filters are left, so that a reference can be compared."""
    model = copied(model)
    props = {p.key: p for p in model.metadata_props}
    kept: dict[str, list[int]] = json.loads(props[KEPT_KEY].value) if KEPT_KEY in props else {}
    first = analysis.first_labels()
    lines = {
        x.name: np.arange(first[x.index], first[x.index] + x.filters)
        for x in find_layers(analysis.model, analysis.constants, analysis.facts)
        if x.index in first
    }
    for node in analysis.model.graph.node:
        if node.op_type == "BatchNormalization" and node.input[0] in analysis.propagation.labels:
            lines[node_name(node)] = analysis.propagation.labels[node.input[0]].reshape(-1)
    for name, labels in lines.items():
        if removed[labels].any():
            before = kept.get(name, list(range(labels.size)))
            left = np.flatnonzero(~removed[labels])
            kept[name] = [before[int(i)] for i in left]
    if KEPT_KEY not in props:
        props[KEPT_KEY] = model.metadata_props.add(key=KEPT_KEY)
    props[KEPT_KEY].value = json.dumps(kept, sort_keys=True)
    return model
