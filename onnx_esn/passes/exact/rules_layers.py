"""Numbers for what filters compute: equal weights on equal inputs, equal outputs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channels.propagation import along
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.passes.exact.ranges import Range, weighted
from onnx_esn.passes.exact.values import Floats, Ids, digest
from onnx_esn.passes.exact.walk import Walk
from onnx_esn.passes.layers.reads import contracted, filter_rows, gemm_alpha, is_plain, settled_taps

Mask = NDArray[np.bool_]

_LARGEST = 1 << 24  # weights of a layer whose range is worked out


def layer(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Conv, ConvTranspose, Gemm, MatMul with weights: one number for each filter."""
    it = walk.layers[index]
    rank = len(walk.shape(it.output))
    if not is_plain(it):
        return
    data, axis = contracted(walk.analysis, it)
    shape = walk.shape(data)
    inputs = np.broadcast_to(walk.view(data, [axis], len(shape)).reshape(-1), (shape[axis],))
    if inputs.size != it.channels_in:
        return  # a size that depends on the data was guessed
    offset, known = _offsets(walk, it)
    taps = settled_taps(walk.analysis, it)
    head = (
        walk.signature(node),
        it.slot,
        it.weight_shape[it.filter_axis + 1 :] if it.kernel else (),
        walk.rest(data, [axis], len(shape)),
    )
    W = filter_rows(walk.analysis, it)
    low, high = np.full((2, it.filters), np.nan)
    if it.depthwise:  # one input each: all at once
        inputs = np.repeat(inputs, it.filters // it.groups)
        rows, gain, read = _depthwise(walk, W, inputs, *taps)
        a, b = walk.values.ranges(inputs[:, None])
        low, high = _range(walk, it, W, (a, b), taps[1])
    else:
        rows, gain, read = [], np.zeros(it.filters), list[Hashable]()
        for at, block, part in _blocks(it, inputs, W):
            low[at], high[at] = _range(walk, it, part, walk.values.ranges(block), taps[1])
            part, gain[at] = _without_constants(walk, it, part, block, *taps)
            block, part = _collected(block, part)
            rows += list(part.reshape(len(part), -1))
            read += [digest(block)] * len(part)
    keys = zip(read, rows, offset.tolist(), gain.tolist(), strict=True)
    ids = np.array([walk.values.of((head, r, digest(w), o, g)) for r, w, o, g in keys], np.int64)
    nothing = np.array([not w.any() for w in rows]) & ~np.isnan(known)
    ids[nothing] = walk.constant_ids(walk.rounded((known + gain)[nothing], it.output))
    ids[~nothing] = walk.values.within(ids, low + known, high + known)[~nothing]
    walk.put(it.output, along(ids, it.channel_axis, rank))


def _blocks(
    it: Layer, inputs: Ids, W: NDArray[np.generic]
) -> Iterator[tuple[slice, Ids, NDArray[np.generic]]]:
    """For each group: its filters, the numbers (C/groups,) of what they read, their weights."""
    if it.groups == 1:
        yield slice(None), inputs, W
        return
    m, c = it.filters // it.groups, it.channels_in // it.groups
    for g in range(it.groups):
        yield slice(g * m, (g + 1) * m), inputs[g * c : (g + 1) * c], W[g * m : (g + 1) * m]


def _depthwise(
    walk: Walk, W: NDArray[np.generic], read: Ids, coverage: Floats, whole: Mask
) -> tuple[list[NDArray[np.generic]], Floats, list[Hashable]]:
    """As `_without_constants`, for filters (M, 1, taps) that read one channel (M,) each."""
    values = walk.values.constants(read)
    rows = W[:, 0] + np.zeros((), W.dtype)
    exact = ~np.isnan(values) & ((values == 0) | ~(rows[:, ~whole] != 0).any(axis=1))
    gain = np.zeros(len(W))
    gain[exact] = (rows[exact][:, whole].astype(np.float64) @ coverage[whole]) * values[exact]
    rows[exact] = 0
    return list(rows), gain + 0.0, [int(r) for r in read]


def _without_constants(
    walk: Walk, it: Layer, W: NDArray[np.generic], read: Ids, coverage: Floats, whole: Mask
) -> tuple[NDArray[np.generic], Floats]:
    """Weights without those that read constants, and what these add to each filter (M,).

    Where zero padding meets a constant other than 0, its weights stay in place.
    """
    gain = np.zeros(len(W))
    values = walk.values.constants(read)
    columns = np.flatnonzero(~np.isnan(values))
    if columns.size == 0:
        return W, gain
    part = W[:, columns].astype(np.float64)
    a = values[columns]
    exact = ~((part[:, :, ~whole] != 0) & (a != 0)[:, None]).any(axis=(1, 2))
    sums = (part[:, :, whole] @ coverage[whole]) @ a
    gain[exact] = sums[exact] * gemm_alpha(walk.analysis, it)
    W = W.copy()
    W[:, columns[a == 0]] = 0
    W[np.ix_(exact, columns)] = 0
    return W, gain + 0.0


def _range(walk: Walk, it: Layer, W: NDArray[np.generic], ranges: Range, whole: Mask) -> Range:
    """Range (M,) of what filters (M, C, taps) make of their inputs; NaN where W is too large."""
    if W.size > _LARGEST:
        return np.full(len(W), np.nan), np.full(len(W), np.nan)
    kind = walk.analysis.facts.types.get(it.output, 1)
    rounding = max(EPSILON.get(kind, 0.0), 2.0**-23) / 2
    with np.errstate(all="ignore"):
        low, high = weighted(W, *ranges, not whole.all(), rounding)
        alpha = gemm_alpha(walk.analysis, it)
        return (low * alpha, high * alpha) if alpha > 0 else (high * alpha, low * alpha)


def _collected(read: Ids, W: NDArray[np.generic]) -> tuple[Ids, NDArray[np.generic]]:
    """Weights of equal inputs, added up; −0 becomes 0."""
    different, where = np.unique(read, return_inverse=True)
    if different.size == read.size:
        return read, W + np.zeros((), W.dtype)
    order = np.argsort(where, kind="stable")
    starts = np.searchsorted(where[order], np.arange(different.size))
    total = np.add.reduceat(W[:, order].astype(np.float64), starts, axis=1)
    return different, total + 0.0


def _offsets(walk: Walk, it: Layer) -> tuple[Ids, Floats]:
    """A number (M,) for the bias of each filter, and its value; NaN where not one constant."""
    if not it.bias:
        return np.full(it.filters, walk.values.constant(0.0)), np.zeros(it.filters)
    if it.bias not in walk.analysis.constants:
        return walk.values.fresh(it.filters), np.full(it.filters, np.nan)
    beta = 1.0
    if it.op == "Gemm":
        beta = float(attributes(walk.analysis.model.graph.node[it.index]).get("beta", 1.0))
    axis, rank = (it.channel_axis, 2) if it.op == "Gemm" else (0, 1)
    ids = np.broadcast_to(walk.view(it.bias, [axis], rank).reshape(-1), (it.filters,))
    return ids, walk.values.constants(ids) * beta + 0.0
