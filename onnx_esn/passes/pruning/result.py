"""The result of a pruning: the plan that replays it, the model with its new biases, the report."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_esn.errors import PlanError
from onnx_esn.graph.bodies import close_bodies
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.channels.shared_weights import split_weights
from onnx_esn.graph.rewrite.bias import BiasDelta, add_to_biases
from onnx_esn.graph.rewrite.kept import record_kept
from onnx_esn.graph.rewrite.rewriting import Rewritten
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.pruning.selection import MacCounter
from onnx_esn.passes.pruning.steering import filters_of
from onnx_esn.plans import FoldedConstant, GroupEntry, PruningPlan, SliceEntry

# Layers whose width is no multiple of this run slowly (docs/concepts/pruning.md has figures).
EVEN = 4


def pruning_result(
    analysis: Analysis,
    removed: Mask,
    rewritten: Rewritten,
    folded: Sequence[FoldedConstant],
    notes: Sequence[Skipped],
) -> PassResult:
    """Put the result together.

    Args:
        analysis: the original model.
        removed: per label, whether it went.
        rewritten: the model without them; it becomes that of the result.
        folded: what is added to biases.
        notes: what to report besides locked groups and barriers.
    """
    model = analysis.source
    if removed.any():
        model = with_biases(analysis, rewritten.model, removed, folded)
        record_kept(analysis, model, removed)
        close_bodies(model)
    slices = tuple(SliceEntry(s.tensor, s.axis, s.removed, s.users) for s in rewritten.slices)
    plan = PruningPlan(slices, _group_entries(analysis, removed), tuple(folded))
    skipped = [Skipped(g.name, g.reason) for g in analysis.groups if g.reason]
    skipped += [Skipped(b.node, b.reason) for b in analysis.propagation.barriers]
    skipped += [_split(*split) for split in _split_weights(analysis, removed)]
    skipped += notes
    layers = filters_of(analysis).values()
    lost = [int(removed[labels].sum()) for labels in layers]
    counter = MacCounter(analysis)
    free = np.append(~analysis.classes.locked, False)[analysis.classes.of]
    details = {
        "filters_before": sum(labels.size for labels in layers),
        "filters_prunable": sum(int(free[labels].sum()) for labels in layers),
        "filters_removed": sum(lost),
        "layers_uneven": sum(
            n > 0 and (labels.size - n) % EVEN != 0 for labels, n in zip(layers, lost, strict=True)
        ),
        "macs_before": counter(np.zeros_like(removed)),
        "macs_after": counter(removed),
    }
    return PassResult(model, bool(removed.any()), tuple(skipped), plan, details)


def _split_weights(analysis: Analysis, removed: Mask) -> list[tuple[list[str], int]]:
    claims = analysis.propagation.claims
    return split_weights(analysis.constants, claims, analysis.layers, removed)


def _split(layers: list[str], copies: int) -> Skipped:
    first, *others = layers
    names = ", ".join(map(repr, others[:3])) + (", …" if len(others) > 3 else "")
    return Skipped(
        first,
        f"shared its weight with {names}, but not all of them lose the same channels: it is "
        f"stored {copies} times now",
    )


def joined(first: PassResult, second: PassResult) -> PassResult:
    """Two prunings, one after the other, as one result; its plan replays both."""
    a, b = first.details, second.details
    details = {
        **b,
        "filters_before": a["filters_before"],
        "filters_prunable": a["filters_removed"] + b["filters_prunable"],
        "filters_removed": a["filters_removed"] + b["filters_removed"],
        "macs_before": a["macs_before"],
        "layers_uneven": (b if second.modified else a)["layers_uneven"],
    }
    skipped = tuple(dict.fromkeys((*first.skipped, *second.skipped)))
    modified = first.modified or second.modified
    assert isinstance(first.plan, PruningPlan)
    assert isinstance(second.plan, PruningPlan)
    plan = second.plan
    if first.modified:
        plan = replace(first.plan, then=second.plan) if second.modified else first.plan
    return PassResult(second.model, modified, skipped, plan, details)


def _group_entries(analysis: Analysis, removed: Mask) -> tuple[GroupEntry, ...]:
    gone = np.zeros(len(analysis.classes), np.bool_)
    gone[analysis.classes.of[removed]] = True
    if analysis.apart is not None and (analysis.removed_labels(gone) != removed).any():
        return _group_entries(analysis.apart, removed)
    return tuple(
        GroupEntry(
            g.name,
            tuple(m.node for m in g.members),
            g.width,
            g.width - int(gone[g.classes].sum()),
            g.reason,
        )
        for g in analysis.groups
    )


def with_biases(
    analysis: Analysis, model: onnx.ModelProto, removed: Mask, folded: Sequence[FoldedConstant]
) -> onnx.ModelProto:
    """The rewritten model, changed: constants are added to biases.

    Raises:
        PlanError: an entry names no layer, or has not one number per filter that is left.
    """
    first = analysis.first_labels
    layers = {x.name: x for x in analysis.layers if x.index in first}
    deltas = {}
    for entry in folded:
        layer = layers.get(entry.node)
        if layer is None:
            close = difflib.get_close_matches(entry.node, layers, 3)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise PlanError(f"plan: no layer is called {entry.node!r}{hint}")
        start = first[layer.index]
        left = layer.filters - int(removed[start : start + layer.filters].sum())
        if len(entry.bias) != left:
            raise PlanError(
                f"plan: folded constant of {entry.node!r} has {len(entry.bias)} numbers for "
                f"{left} filters; remove the entry to drop the constant"
            )
        deltas[layer.output] = BiasDelta(
            np.array(entry.bias),
            trailing=len(analysis.facts.shapes[layer.output]) - 1 - layer.channel_axis,
            type=analysis.facts.types[layer.output],
        )
    return add_to_biases(model, deltas, owned=True)
