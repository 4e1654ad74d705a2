"""Data movement executed on arrays: labels, expected values, anything that sits in a tensor.

An array here is *compact*: it has the rank of the tensor it describes, and an axis along which
its values do not change may have size 1. `shape` is always the tensor's full shape. Each rule
returns a compact array again. The same code moves channel labels in the analysis, checks the
rewritten graph, and carries expected values to the consumers of a removed channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


class MovementError(Exception):
    """This use of the operator cannot be executed on compact arrays."""


@dataclass(frozen=True)
class Move:
    """One data-movement node at one size.

    Attributes:
        op: operator type.
        attrs: its attributes.
        params: the values of its inputs; None where unknown or left out (index 0 is the data).
        in_shape: full shape of the data input.
        out_shapes: full shapes of the outputs.
    """

    op: str
    attrs: dict[str, Any]
    params: Sequence[Array | None]
    in_shape: Shape
    out_shapes: Sequence[Shape]

    def param(self, index: int) -> Array | None:
        """Value of input `index`, or None."""
        return self.params[index] if index < len(self.params) else None


def compact(x: Array) -> Array:
    """Collapse every axis along which `x` does not change."""
    for axis in range(x.ndim):
        if x.shape[axis] > 1:
            first = x[(slice(None),) * axis + (slice(0, 1),)]
            if bool((x == first).all()):
                x = first
    return x


def expand(x: Array, shape: Shape, axes: Sequence[int]) -> Array:
    """Give the listed axes of a compact array their full size."""
    full = list(x.shape)
    for axis in axes:
        full[axis] = shape[axis]
    return np.broadcast_to(x, full)


def slice_window(attrs: dict[str, Any], params: Sequence[Array | None], shape: Shape) -> Any:
    """The Python slices of a Slice node (attributes before opset 10, inputs after)."""

    def get(index: int, name: str) -> list[int] | None:
        if name in attrs:
            return list(attrs[name])
        if index < len(params) and params[index] is not None:
            return [int(v) for v in np.asarray(params[index]).reshape(-1)]
        return None

    starts, ends = get(1, "starts"), get(2, "ends")
    if starts is None or ends is None:
        raise MovementError("its window is computed at run time")
    axes = get(3, "axes") or list(range(len(starts)))
    steps = get(4, "steps") or [1] * len(starts)
    window = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        axis %= len(shape)
        if step > 0:
            start, end = (max(0, v + size) if v < 0 else min(v, size) for v in (start, end))
            window[axis] = slice(start, max(start, end), step)
        else:
            start = start + size if start < 0 else min(start, size - 1)
            end = end + size if -size <= end < 0 else end
            window[axis] = slice(start, None if end < 0 else end, step)
    return tuple(window)


def _identity(m: Move, x: Array) -> list[Array]:
    return [x for _ in m.out_shapes]


def _reshape(m: Move, x: Array) -> list[Array]:
    (out,) = m.out_shapes[:1]
    return [reshape(x, m.in_shape, out)]


def reshape_blocks(shape: Shape, out: Shape) -> list[tuple[range, range]]:
    """Axes before and after a Reshape that hold the same elements: each block moves on its own."""
    if 0 in shape:
        raise MovementError("an axis has size 0")
    blocks, i, j = [], 0, 0
    while i < len(shape) or j < len(out):
        a, b, p, q = i, j, 1, 1
        if i < len(shape):
            p, i = shape[i], i + 1
        if j < len(out):
            q, j = out[j], j + 1
        while p != q:
            if p < q and i < len(shape):
                p, i = p * shape[i], i + 1
            elif q < p and j < len(out):
                q, j = q * out[j], j + 1
            else:
                raise MovementError("sizes do not match")
        blocks.append((range(a, i), range(b, j)))
    return blocks


def reshape(x: Array, shape: Shape, out: Shape) -> Array:
    """Reshape a compact array of a tensor of `shape` into the compact array for `out`."""
    source: list[int] = []
    result: list[int] = []
    for before, after in reshape_blocks(shape, out):
        if all(x.shape[k] == 1 for k in before):
            source += [1] * len(before)
            result += [1] * len(after)
        else:
            source += (shape[k] for k in before)
            result += (out[k] for k in after)
    return compact(np.broadcast_to(x, source).reshape(result))


def _transpose(m: Move, x: Array) -> list[Array]:
    return [np.transpose(x, m.attrs.get("perm"))]


def _axes(m: Move) -> list[int] | None:
    axes = m.attrs.get("axes")
    if axes is None and m.param(1) is not None:
        axes = np.asarray(m.param(1)).reshape(-1)
    return None if axes is None else [int(a) for a in axes]


def _squeeze(m: Move, x: Array) -> list[Array]:
    rank = len(m.in_shape)
    axes = _axes(m)
    drop = (
        {a % rank for a in axes}
        if axes is not None
        else {a for a in range(rank) if m.in_shape[a] == 1}
    )
    return [x.reshape([n for a, n in enumerate(x.shape) if a not in drop])]


def _unsqueeze(m: Move, x: Array) -> list[Array]:
    axes = _axes(m)
    if axes is None:
        raise MovementError("its axes are computed at run time")
    return [np.expand_dims(x, tuple(axes))]


def _slice(m: Move, x: Array) -> list[Array]:
    window = list(slice_window(m.attrs, m.params, m.in_shape))
    for axis, n in enumerate(x.shape):
        if n == 1 and m.in_shape[axis] != 1:
            window[axis] = slice(None)
    return [compact(x[tuple(window)])]


def _split(m: Move, x: Array) -> list[Array]:
    axis = m.attrs.get("axis", 0) % len(m.in_shape)
    if x.shape[axis] == 1:
        return [x for _ in m.out_shapes]
    ends = np.cumsum([s[axis] for s in m.out_shapes])
    if ends[-1] != m.in_shape[axis]:
        raise MovementError("its parts do not add up")
    return [compact(p) for p in np.split(x, ends[:-1], axis)]


def _gather(m: Move, x: Array) -> list[Array]:
    axis = m.attrs.get("axis", 0) % len(m.in_shape)
    (out,) = m.out_shapes[:1]
    rank = len(out) - len(m.in_shape) + 1  # rank of the indices
    indices = m.param(1)
    size = m.in_shape[axis]
    if indices is not None and ((indices < -size) | (indices >= size)).any():
        raise MovementError("an index is out of range")
    if x.shape[axis] == 1:
        return [x.reshape(x.shape[:axis] + (1,) * rank + x.shape[axis + 1 :])]
    if indices is None:
        raise MovementError("its indices are computed at run time")
    return [compact(np.take(x, indices.astype(np.int64), axis))]


def _gather_nd(m: Move, x: Array) -> list[Array]:
    """Rows of the indices address the leading axes behind the batch axes."""
    (out,) = m.out_shapes[:1]
    batch, rank = int(m.attrs.get("batch_dims", 0)), len(m.in_shape)
    indices = m.param(1)
    if indices is None:
        raise MovementError("its indices are computed at run time")
    depth = indices.shape[-1]
    addressed = list(range(batch, batch + depth))
    if batch:
        if any(x.shape[a] > 1 for a in addressed):
            raise MovementError("it gathers channels by batch")
        kept = x.shape[:batch] + (1,) * (len(out) - batch - (rank - batch - depth))
        return [x.reshape(kept + x.shape[batch + depth :])]
    sizes = np.array(m.in_shape[:depth])
    if ((indices < -sizes) | (indices >= sizes)).any():
        raise MovementError("an index is out of range")
    # Along an axis that does not vary any position will do.
    where = np.moveaxis(np.where(np.array(x.shape[:depth]) > 1, indices, 0), -1, 0)
    return [compact(x[tuple(where.astype(np.int64))])]


def _expand(m: Move, x: Array) -> list[Array]:
    (out,) = m.out_shapes[:1]
    return [x.reshape((1,) * (len(out) - x.ndim) + x.shape)]


def _tile(m: Move, x: Array) -> list[Array]:
    (out,) = m.out_shapes[:1]
    repeats = [o // i if n > 1 else 1 for o, i, n in zip(out, m.in_shape, x.shape, strict=True)]
    return [compact(np.tile(x, repeats))]


def _depth_to_space(m: Move, x: Array) -> list[Array]:
    c, h, w = m.in_shape[1:]
    b = m.attrs["blocksize"]
    x = expand(x, m.in_shape, [1])
    if m.attrs.get("mode", b"DCR") == b"DCR":
        split, perm = (b, b, c // b**2), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (c // b**2, b, b), (0, 1, 4, 2, 5, 3)
    if x.shape[2] > 1 or x.shape[3] > 1:
        raise MovementError("its channels already vary over space")
    tall = x.reshape(x.shape[:1] + split + (1, 1)).transpose(perm)
    tall = np.broadcast_to(tall, (x.shape[0], c // b**2, h, b, w, b))
    return [compact(tall.reshape(x.shape[0], c // b**2, h * b, w * b))]


def _space_to_depth(m: Move, x: Array) -> list[Array]:
    c, h, w = m.in_shape[1:]
    b = m.attrs["blocksize"]
    if x.shape[2] == 1 and x.shape[3] == 1:
        return [np.tile(expand(x, m.in_shape, [1]), (1, b * b, 1, 1))]
    x = expand(x, m.in_shape, [1, 2, 3]).reshape(x.shape[0], c, h // b, b, w // b, b)
    return [compact(x.transpose(0, 3, 5, 1, 2, 4).reshape(-1, c * b * b, h // b, w // b))]


def _flatten(m: Move, x: Array) -> list[Array]:
    return _reshape(m, x)


MOVES: dict[str, Callable[[Move, Array], list[Array]]] = {
    "Identity": _identity,
    "Cast": _identity,
    "CastLike": _identity,
    "Dropout": _identity,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}


def move(m: Move, x: Array) -> list[Array]:
    """Execute a data-movement node on the compact array of its data input.

    Raises:
        MovementError: it depends on a value that is not known, or on sizes that do not fit.
    """
    try:
        return MOVES[m.op](m, x)
    except (ValueError, IndexError, KeyError) as error:
        raise MovementError(str(error)) from error
