"""Let one input channel of a layer do the work of others that hold the same values."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_esn.errors import PlanError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask, line
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.node_names import unique_names
from onnx_esn.graph.readers import read_places
from onnx_esn.graph.rewrite.housekeeping import drop_unused
from onnx_esn.graph.stored import add_initializer
from onnx_esn.passes.base import copied
from onnx_esn.plans import MergedChannels

_SLOTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1, 0), "MatMul": (1, 0)}


def merge_channels(model: onnx.ModelProto, merged: Sequence[MergedChannels]) -> onnx.ModelProto:
    """A copy of the model in which weights of equal input channels are added up.

    The weights that were added stay in place: the channels they read have to be removed next. A
    weight that other nodes read as it is stays for them; the layer gets its own.

    Raises:
        PlanError: an entry does not fit the model.
    """
    if not merged:
        return model
    result = copied(model)
    constants = Constants(model)
    names = unique_names(model)
    index = {name: i for i, name in enumerate(names)}
    places = read_places(model)
    wishes = {entry.node: entry for entry in merged}
    used = {n for node in model.graph.node for n in (*node.input, *node.output)}
    used |= set(constants.initializers)
    done: set[str] = set()
    for entry in merged:
        if entry.node not in index:
            close = difflib.get_close_matches(entry.node, names, 3)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise PlanError(f"plan: no layer is called {entry.node!r}{hint}")
        node = result.graph.node[index[entry.node]]
        slots = _SLOTS.get(node.op_type, ())
        slot = next(
            (s for s in slots if model.graph.node[index[entry.node]].input[s] in constants), -1
        )
        if slot < 0:
            raise PlanError(f"plan: {entry.node!r} is no layer with weights: nothing can be merged")
        weight = model.graph.node[index[entry.node]].input[slot]
        if weight in done:
            continue
        value = _added(constants, weight, entry)
        others = [wishes.get(names[i]) if i >= 0 else None for i, _ in places[weight]]
        alike = all(o is not None and _same(o, entry) for o in others)
        if weight in constants.initializers and alike:
            stored = next(t for t in result.graph.initializer if t.name == weight)
            stored.CopyFrom(_like(stored, value, weight))
            done.add(weight)
            continue
        fresh = f"{weight}_{entry.node}"
        while fresh in used:
            fresh += "_"
        used.add(fresh)
        add_initializer(result, numpy_helper.from_array(value, fresh))
        node.input[slot] = fresh
    drop_unused(model, result)
    return result


def _same(a: MergedChannels, b: MergedChannels) -> bool:
    return (a.axis, a.into, a.added) == (b.axis, b.into, b.added)


def _like(old: onnx.TensorProto, value: np.ndarray, name: str) -> onnx.TensorProto:
    result = numpy_helper.from_array(value, name)
    result.doc_string = old.doc_string
    result.metadata_props.extend(old.metadata_props)
    return result


def _added(constants: Constants, weight: str, entry: MergedChannels) -> np.ndarray:
    """The weight with the slices of `entry.added` added, rounded once."""
    W = constants.value(weight)
    where = f"axis {entry.axis} of the weight of {entry.node!r}"
    if entry.axis >= W.ndim or len(entry.into) != len(entry.added):
        raise PlanError(f"plan: merged channels do not fit {where}")
    for i in (*entry.into, *entry.added):
        if i >= W.shape[entry.axis]:
            raise PlanError(f"plan: index {i} is outside {where}, size {W.shape[entry.axis]}")
    total = np.moveaxis(W.astype(np.float64), entry.axis, 0)
    parts = total[list(entry.added)].copy()
    np.add.at(total, list(entry.into), parts)
    return np.ascontiguousarray(np.moveaxis(total, 0, entry.axis).astype(W.dtype))


def check_merged(analysis: Analysis, removed: Mask, merged: Sequence[MergedChannels]) -> None:
    """Channels whose weights went to another one must go, and the other one must stay.

    Args:
        analysis: the model, merged.
        removed: per label, whether it goes.
        merged: what was merged.

    Raises:
        PlanError: an edited plan merges channels that it keeps, or into one that it removes.
    """
    claims = {
        (analysis.names[c.node], axis): line(c.labels, axis)
        for c in analysis.propagation.claims
        if c.role == "input"
        for axis, n in enumerate(c.labels.shape)
        if n > 1
    }
    for entry in merged:
        labels = claims.get((entry.node, entry.axis))
        if labels is None:
            raise PlanError(f"plan: {entry.node!r} reads no channels along axis {entry.axis}")
        for i, stays in (*((i, True) for i in entry.into), *((i, False) for i in entry.added)):
            if bool(removed[labels[i]]) == stays:
                what = "is removed" if stays else "stays"
                raise PlanError(
                    f"plan: input channel {i} of {entry.node!r} is merged with another one, but "
                    f"{what}; change both or neither"
                )
