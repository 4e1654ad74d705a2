"""What a pruning plan removes: its entries carried back to labels, closed under coupling."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_esn.errors import PlanError
from onnx_esn.graph.channels.groups import Analysis, analyse
from onnx_esn.graph.channels.labels import Classes, Labels, Mask
from onnx_esn.graph.rewrite.rewriting import RewriteError, rewrite
from onnx_esn.graph.rewrite.slicing import claimed_sources, removed_along
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.pruning.result import joined, pruning_result
from onnx_esn.plans import PruningPlan, SliceEntry


def replay(
    model: onnx.ModelProto, plan: PruningPlan, shapes: Mapping[str, Sequence[int]] | None = None
) -> PassResult:
    """Carry out a plan.

    Args:
        model: the model that the plan was made for.
        plan: the plan.
        shapes: input shapes for dynamic axes other than the batch.

    Raises:
        PlanError: it does not fit the model.
    """
    from onnx_esn.passes.exact.merge import check_merged, merge_channels

    analysis = analyse(merge_channels(model, plan.merged), shapes=shapes)
    removed = planned_removal(analysis, plan)
    check_merged(analysis, removed, plan.merged)
    try:
        rewritten = rewrite(analysis, removed)
    except RewriteError as error:
        raise PlanError(f"the plan cannot be carried out: {error.reason}") from error
    result = pruning_result(analysis, removed, rewritten, plan.folded_constants, ())
    assert isinstance(result.plan, PruningPlan)
    first = replace(result, plan=replace(result.plan, merged=plan.merged))
    return first if plan.then is None else joined(first, replay(first.model, plan.then, shapes))


def planned_removal(analysis: Analysis, plan: PruningPlan) -> Mask:
    """Per label, whether the plan removes it.

    A plan that this tool wrote names every tensor that is sliced. In one that was edited, a single
    entry is enough: what the graph ties to its channels goes too.

    Raises:
        PlanError: an entry does not fit the model, or what it names has to stay.
    """
    analysis = analysis.apart or analysis  # it says itself which readers of a tensor it means
    sources = claimed_sources(analysis)
    named = [_named(analysis, entry, sources) for entry in plan.slices]
    removed = _closed(analysis, analysis.coupled, plan, named)
    if not _rectangular(analysis, removed):
        removed = _closed(analysis, analysis.classes, plan, named)
    for members in analysis.constraints:
        inside = np.isin(analysis.classes.of, members)
        if removed[inside].all():
            raise PlanError(_emptied(analysis, members))
    return removed


def _named(
    analysis: Analysis,
    entry: SliceEntry,
    sources: dict[tuple[str, int], list[tuple[str, Labels]]],
) -> Labels:
    """The labels that an entry names."""
    where = f"axis {entry.axis} of {entry.tensor!r}"
    claims = sources.get((entry.tensor, entry.axis))
    if not claims:
        axes = sorted(axis for tensor, axis in sources if tensor == entry.tensor)
        if axes:
            hint = f"; its channel axes are {', '.join(map(str, axes))}"
        else:
            close = difflib.get_close_matches(entry.tensor, {t for t, _ in sources}, 3)
            hint = f"; close names: {', '.join(close)}" if close else ""
        raise PlanError(f"plan: {where} is not a channel axis of this model{hint}")
    readers = {reader for reader, _ in claims}
    unknown = [user for user in entry.users if user not in readers]
    if unknown:
        users = ", ".join(sorted(readers))
        raise PlanError(f"plan: {unknown[0]!r} does not read {where}; its users are {users}")
    found = []
    for reader, labels in claims:
        if not entry.users or reader in entry.users:
            outside = [i for i in entry.removed if i >= labels.size]
            if outside:
                raise PlanError(f"plan: index {outside[0]} is outside {where}, size {labels.size}")
            found.append(labels[list(entry.removed)])
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _closed(analysis: Analysis, classes: Classes, plan: PruningPlan, named: list[Labels]) -> Mask:
    gone = np.zeros(len(classes) + 1, np.bool_)
    for entry, labels in zip(plan.slices, named, strict=True):
        where = f"axis {entry.axis} of {entry.tensor!r}"
        of = classes.of[labels]
        if (of < 0).any():
            raise PlanError(f"plan: {where} reads channels that cannot be removed")
        for c in of[classes.locked[of]]:
            raise PlanError(f"plan: {where} cannot be sliced: {classes.reasons[c]}")
        gone[of] = True
    return gone[classes.of]  # of[0] is −1, the last entry: False


def _rectangular(analysis: Analysis, removed: Mask) -> bool:
    """Whether every tensor loses whole slices."""
    p = analysis.propagation
    try:
        for name, labels in p.labels.items():
            removed_along(labels, removed, name)
        for claim in p.claims:
            removed_along(claim.labels, removed, claim.tensor)
    except ValueError:
        return False
    return True


def _emptied(analysis: Analysis, members: Labels) -> str:
    group = next((g for g in analysis.groups if np.isin(members, g.classes).any()), None)
    name = f"{group.name!r}" if group else "a tensor"
    return f"plan: {name} would lose all of its channels; keep at least one"
