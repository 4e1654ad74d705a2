"""Label rules of the operators that contract channels with weights: they consume labels along the
contracted axis and issue new ones for their filters."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Product, Propagation, align, along, others
from onnx_esn.graph.channels.rules_elementwise import meet_parameter
from onnx_esn.graph.movement import expand
from onnx_esn.graph.node_names import describe


def vector_along(p: Propagation, name: str, axis: int, reason: str) -> Labels | None:
    """Labels of a tensor as a vector along `axis`, tied along every other axis.

    None where the tensor carries no label, or none that changes along `axis`.
    """
    x = p.get(name)
    if x is None:
        return None
    shape = p.shape(name)
    mixed = p.space.tie_along(x, others(len(shape), axis), reason)
    if mixed.size == 1 and (shape[axis] > 1 or x.size > 1):
        p.space.lock(x, reason)
        return None
    return expand(mixed, shape, [axis]).reshape(-1)


def conv(p: Propagation, node: onnx.NodeProto) -> None:
    """Conv: weight (M, C/groups, …), channels on axis 1."""
    _convolution(p, node, filter_axis=0)


def conv_transpose(p: Propagation, node: onnx.NodeProto) -> None:
    """ConvTranspose: weight (C, M/groups, …), channels on axis 1."""
    _convolution(p, node, filter_axis=1)


def _convolution(p: Propagation, node: onnx.NodeProto, filter_axis: int) -> None:
    x, w = node.input[:2]
    if w not in p.constants:
        p.barrier(node, "its weight is computed at run time")
        return
    shape = p.constants.shape(w)
    rank = len(shape)
    groups = int(p.attrs(node).get("group", 1))
    reason = f"read by {describe(node)}"
    read = vector_along(p, x, 1, reason)
    if filter_axis == 0:
        M, C = shape[0], shape[1] * groups
    else:
        M, C = shape[1] * groups, shape[0]
    if (read is not None and read.size != C) or M % groups or C % groups:
        p.barrier(node, "its groups, its weight and its input do not fit each other")
        return
    made = p.space.issue(M, p.index)
    if groups == 1:
        p.claim(node, 1, along(made, filter_axis, rank), "filter")
        if read is not None:
            p.claim(node, 1, along(read, 1 - filter_axis, rank), "input")
    else:
        _grouped(p, node, rank, filter_axis, groups, C, read, made)
    if len(node.input) > 2 and node.input[2]:
        meet_parameter(p, node, 2, made, 0, 1, f"bias of {describe(node)}")
    p.put(node.output[0], along(made, 1, rank))


def _grouped(
    p: Propagation,
    node: onnx.NodeProto,
    rank: int,
    filter_axis: int,
    groups: int,
    C: int,
    read: Labels | None,
    made: Labels,
) -> None:
    """All groups must keep equal shapes: remove whole groups, or the same position of each.

    Whichever leaves more classes to choose from; a depthwise convolution has one input channel a
    group and so always loses whole groups.
    """
    M = made.size
    m, c = M // groups, C // groups
    reason = f"grouped with a channel that carries no label in {describe(node)}"
    reason = p.why_unlabelled(node.input[0]) or reason
    rows = made.reshape(groups, m)
    whole = groups > min(m, c) or c == 1
    columns = np.zeros((groups, c), np.int64) if read is None else read.reshape(groups, c)
    if whole:
        p.space.tie(rows, rows[:, :1], reason)
        p.space.tie(columns, rows[:, :1], reason)
        # Both halves of the weight that axis 0 carries go with the group.
        if filter_axis == 0:
            p.claim(node, 1, along(made, 0, rank), "filter")
        else:
            p.claim(node, 1, along(np.repeat(rows[:, 0], c), 0, rank), "filter")
        p.groups[p.index] = rows[:, 0]
        return
    p.space.tie(rows, rows[:1], reason)
    if filter_axis == 0:
        p.claim(node, 1, along(made, 0, rank), "filter")
    else:
        p.claim(node, 1, along(rows[0], 1, rank), "filter")
    if read is not None:
        p.space.tie(columns, columns[:1], reason)
        if filter_axis == 0:
            p.claim(node, 1, along(columns[0], 1, rank), "input")
        else:
            p.claim(node, 1, along(read, 0, rank), "input")


def gemm(p: Propagation, node: onnx.NodeProto) -> None:
    """Gemm: y = αA'B' + βC with a constant on either side."""
    attrs = p.attrs(node)
    a, b = node.input[:2]
    ta, tb = bool(attrs.get("transA", 0)), bool(attrs.get("transB", 0))
    out = node.output[0]
    reason = f"read by {describe(node)}"
    if b in p.constants and a not in p.constants:
        slot, data, inner, kept = 1, a, (0 if ta else 1), 1
        w_in, w_out = (1, 0) if tb else (0, 1)
    elif a in p.constants and b not in p.constants:
        slot, data, inner, kept = 0, b, (1 if tb else 0), 0
        w_in, w_out = (0, 1) if ta else (1, 0)
    else:
        p.barrier(node, "both of its factors are computed at run time")
        return
    labels = p.get(data)
    passing = None
    if labels is not None and labels.shape[inner] == 1:
        passing, labels = labels, None
    if passing is not None:
        rows = np.moveaxis(passing, inner, kept) if inner != kept else passing
        result: Labels = rows
    else:
        read = vector_along(p, data, inner, reason)
        made = p.space.issue(p.constants.shape(node.input[slot])[w_out], p.index)
        p.claim(node, slot, along(made, w_out, 2), "filter")
        if read is not None:
            p.claim(node, slot, along(read, w_in, 2), "input")
        result = along(made, kept, 2)
    if len(node.input) > 2 and node.input[2]:
        axis = 0 if result.shape[0] > 1 else 1
        meet_parameter(p, node, 2, result.reshape(-1), axis, 2, f"bias of {describe(node)}")
    p.put(out, result)


def matmul(p: Propagation, node: onnx.NodeProto) -> None:
    """MatMul: a constant on either side, or two activations (attention)."""
    a, b = node.input
    if a in p.constants or b in p.constants:
        _matmul_weight(p, node, slot=1 if b in p.constants else 0)
    else:
        _matmul_activations(p, node)


def _matmul_weight(p: Propagation, node: onnx.NodeProto, slot: int) -> None:
    data, w = node.input[1 - slot], node.input[slot]
    shape, weight = p.shape(data), p.constants.shape(w)
    out = node.output[0]
    rank = len(p.shape(out))
    if len(weight) < 2 or len(shape) < 2:
        p.barrier(node, "one of its factors is a vector")
        return
    if slot == 1:
        inner, kept, w_in, w_out = len(shape) - 1, rank - 1, len(weight) - 2, len(weight) - 1
    else:
        inner, kept, w_in, w_out = len(shape) - 2, rank - 2, len(weight) - 1, len(weight) - 2
    labels = p.get(data)
    if labels is not None and labels.shape[inner] == 1:
        # Channels on another axis pass by; the weight mixes within each of them.
        if max(weight[:-2], default=1) > 1:
            p.barrier(node, "its weight has an axis for what may be channels")
            return
        p.put(out, align(labels, rank))
        return
    read = vector_along(p, data, inner, f"read by {describe(node)}")
    made = p.space.issue(weight[w_out], p.index)
    p.claim(node, slot, along(made, w_out, len(weight)), "filter")
    if read is not None:
        p.claim(node, slot, along(read, w_in, len(weight)), "input")
    p.put(out, along(made, kept, rank))


def _matmul_activations(p: Propagation, node: onnx.NodeProto) -> None:
    """A (…, M, K) · B (…, K, N): ties labels along K, passes those along M, N or the batch axes."""
    a, b = p.get(node.input[0]), p.get(node.input[1])
    if a is None and b is None:
        return
    out = node.output[0]
    rank = len(p.shape(out))
    sa, sb = p.shape(node.input[0]), p.shape(node.input[1])
    if min(len(sa), len(sb)) < 2:
        p.barrier(node, "one of its factors is a vector")
        return
    reason = f"multiplied in {describe(node)} with a tensor that carries no channels"
    reason = next((w for w in map(p.why_unlabelled, node.input) if w), reason)
    full = np.broadcast_to(np.zeros(1, np.int64), (1,) * rank)
    a = align(a, rank) if a is not None else full
    b = align(b, rank) if b is not None else full
    sa, sb = (1,) * (rank - len(sa)) + sa, (1,) * (rank - len(sb)) + sb
    batch = list(range(rank - 2))
    row, column = rank - 2, rank - 1

    heads = [k for k in batch if a.shape[k] > 1 and b.shape[k] > 1]
    if heads and not (a.shape[column] > 1 and b.shape[row] > 1):
        # Both vary from head to head, and inside it they do not match: whole heads go.
        inside = [k for k in range(rank) if k not in heads]
        a, b = (p.space.tie_along(x, inside, f"read by {describe(node)}") for x in (a, b))
        p.space.tie(a, b, reason)
        p.put(out, a)
        return

    def settle(x: Labels, inner: int, outer: int) -> Labels:
        # A label can sit on one axis only: the contracted one, else its own, else a batch axis.
        if x.shape[inner] > 1:
            return p.space.tie_along(x, [*batch, outer], f"read by {describe(node)}")
        if x.shape[outer] > 1:
            return p.space.tie_along(x, batch, f"read by {describe(node)}")
        return x

    a, b = settle(a, column, row), settle(b, row, column)
    if a.shape[column] > 1 or b.shape[row] > 1:
        p.space.tie(np.swapaxes(a, row, column), b, reason)
        for x, inner in ((a, column), (b, row)):
            if x.shape[inner] == 1:
                p.space.lock(x, reason)
        if a.shape[column] > 1:
            p.products.append(Product(p.index, 0, a))
        return
    if a.size > 1 and b.size > 1:
        if max(a.shape[:-2], default=1) > 1 and max(b.shape[:-2], default=1) > 1:
            p.space.tie(a, b, reason)
        else:
            p.space.lock(b, f"both factors of {describe(node)} carry channels")
            b = full
    x, size = (a, sb) if a.size > 1 else (b, sa)
    other = b if a.size > 1 else a
    if any(x.shape[k] > 1 and size[k] > 1 and other.shape[k] == 1 for k in batch):
        p.space.lock(x, reason)
    p.put(out, np.array(x))


def recurrent(p: Propagation, node: onnx.NodeProto) -> None:
    """RNN, GRU, LSTM: X (…, I) is contracted with W (directions, gates·H, I); H stays."""
    read = vector_along(p, node.input[0], 2, f"read by {describe(node)}")
    for name in node.input[1:]:
        p.space.lock(p.get(name), f"state of {describe(node)}")
    if read is None:
        return
    if node.input[1] not in p.constants:
        p.barrier(node, "its weight is computed at run time")
        return
    p.claim(node, 1, along(read, 2, 3), "input")
