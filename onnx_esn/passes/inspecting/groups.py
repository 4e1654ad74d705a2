"""What `inspect` says of channel groups: who is in them, what can go, what it would save."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from onnx_esn.graph.channels.groups import Analysis, Group, analyse
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.inputs import data_inputs, declared_shape
from onnx_esn.passes.inspecting.result import GroupInspection, LockInspection, MemberInspection
from onnx_esn.passes.layers.costs import LayerView
from onnx_esn.passes.pruning.macs import MacCounter


def inspect_groups(model: onnx.ModelProto, view: LayerView) -> tuple[GroupInspection, ...]:
    """Return the channel groups, in graph order.

    Args:
        model: the model.
        view: its layers, at the sizes that MACs are counted at.
    """
    # The analysis tells the batch from other axes by its size, so an open batch is left to it.
    sizes = dict(view.facts.sizes)
    for info in data_inputs(model):
        declared = declared_shape(info)
        if declared and not isinstance(declared[0], int):
            sizes[info.name] = (2, *sizes[info.name][1:])
    analysis = analyse(model, shapes=sizes)
    classes = _classes(analysis)
    owner = np.full(len(analysis.classes) + 1, -1)  # of[0] is -1: no class, no owner
    for i, members in enumerate(classes):
        for of in members:
            owner[of] = i
    counter = MacCounter(analysis)
    saved = counter.governed(owner[analysis.classes.of], len(classes))
    total = counter(np.zeros(analysis.classes.of.size, np.bool_))
    return tuple(
        _group(analysis, group, members, macs, total)
        for group, members, macs in zip(analysis.groups, classes, saved, strict=True)
    )


def _classes(analysis: Analysis) -> list[list[Labels]]:
    """For each group, the class of each filter of each member."""
    issued = {
        analysis.names[node]: (first, n) for first, n, node in analysis.propagation.space.issued
    }
    of = analysis.classes.of
    found = []
    for group in analysis.groups:
        spans = (issued[m.node] for m in group.members)
        found.append([of[first : first + n] for first, n in spans])
    return found


def _group(
    analysis: Analysis, group: Group, members: list[Labels], macs: int, total: int
) -> GroupInspection:
    free = np.isin(np.arange(len(analysis.classes)), group.classes)
    held = [np.unique(of[free[of]] if group.prunable else of, return_counts=True) for of in members]
    every = np.unique(np.concatenate(members))
    reasons = Counter(analysis.classes.reasons[c] or group.reason for c in every if not free[c])
    return GroupInspection(
        name=group.name,
        members=tuple(
            MemberInspection(m.node, m.op, m.filters, m.depthwise) for m in group.members
        ),
        width=group.width,
        prunable=int(group.classes.size),
        reason=group.reason,
        prunable_filters=sum(int(free[of].sum()) for of in members),
        granularity=max(int(counts.max(initial=1)) for _, counts in held),
        macs=macs,
        share=macs / total if total else None,
        locks=tuple(LockInspection(reason, n) for reason, n in reasons.most_common()),
    )
