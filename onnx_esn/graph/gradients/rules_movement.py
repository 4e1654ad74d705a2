"""Gradients of operators that only move values: they move the gradient back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.evaluate import EvaluationError, evaluate_node
from onnx_esn.graph.gradients.site import NoGradientError, Rule, Site

Floats = npt.NDArray[np.float64]


def _reshaped(site: Site) -> list[str | None]:
    return site.only_first(site.tape.reshape(site.dy, site.shape(site.x)))


def _same(site: Site) -> list[str | None]:
    return site.only_first(site.dy)


def _cast(site: Site) -> list[str | None]:
    types = site.tape.facts.types
    a, b = types.get(site.x), types.get(site.y)
    if a == b:
        return site.only_first(site.dy)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if a not in floats or b not in floats:
        return site.only_first("")  # through an integer nothing comes back
    return site.only_first(site.tape.emit("Cast", site.dy, to=a))


def _transpose(site: Site) -> list[str | None]:
    rank = len(site.shape(site.x))
    order = [int(i) for i in site.attrs.get("perm", range(rank)[::-1])]
    return site.only_first(site.tape.transpose(site.dy, np.argsort(order).tolist()))


def _concat(site: Site) -> list[str | None]:
    axis = int(site.attrs["axis"]) % len(site.shape(site.y))
    at, found = 0, list[str | None]()
    for name, need in zip(site.node.input, site.needs, strict=True):
        size = site.shape(name)[axis]
        found.append(site.tape.slice(site.dy, [axis], [at], [at + size]) if need else None)
        at += size
    return found


def _split(site: Site) -> list[str | None]:
    t, axis = site.tape, int(site.attrs.get("axis", 0)) % len(site.shape(site.x))
    parts = [
        g or t.expand(t.constant(0.0), site.shape(name))
        for name, g in zip(site.node.output, site.grads, strict=True)
    ]
    return site.only_first(t.emit("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0])


def _slice(site: Site) -> list[str | None]:
    """Axis by axis: flipped where it ran backwards, spread by its step, zeros around."""
    t, shape = site.tape, list(site.shape(site.x))
    starts, ends = site.value(1), site.value(2)
    if starts is None or ends is None:
        raise NoGradientError("its ends are left out")
    axes, steps = site.value(3), site.value(4)
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones(starts.size, np.int64) if steps is None else steps
    gradient, now = site.dy, list(site.shape(site.y))
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        a = int(axis) % len(shape)
        taken = range(shape[a])[slice(int(start), _end(int(end), int(step)), int(step))]
        if not taken:
            return site.only_first(t.expand(t.constant(0.0), shape))
        if step < 0:
            gradient = t.slice(gradient, [a], [-1], [-(len(taken) + 1)], [-1])
            taken = taken[::-1]
        if taken.step > 1 and len(taken) > 1:
            gradient = _spread(site, gradient, now, a, taken.step)
            now[a] *= taken.step
        span = taken[-1] - taken[0] + 1
        if now[a] > span:  # zeros behind the last value
            gradient, now[a] = t.slice(gradient, [a], [0], [span]), span
        before[a], after[a] = taken[0], shape[a] - taken[-1] - 1
    return site.only_first(t.pad(gradient, before, after))


def _end(end: int, step: int) -> int | None:
    """What Python calls the end: ONNX writes −∞ where a slice runs down past the first value."""
    return None if step < 0 and end < -(2**31) + 1 else end


def _spread(site: Site, x: str, shape: list[int], axis: int, step: int) -> str:
    """step − 1 zeros behind each value along an axis."""
    t, lead, tail = site.tape, shape[: axis + 1], shape[axis + 1 :]
    x = t.reshape(x, [*lead, 1, *tail])
    after = [0] * (len(shape) + 1)
    after[axis + 1] = step - 1
    x = t.pad(x, [0] * (len(shape) + 1), after)
    return t.reshape(x, [*lead[:-1], lead[-1] * step, *tail])


def _gather(site: Site) -> list[str | None]:
    """Rows added back by a product with the 0/1 matrix that picked them."""
    t, shape = site.tape, site.shape(site.x)
    picked = site.value(1)
    if picked is None:
        raise NoGradientError("its indices are left out")
    axis = int(site.attrs.get("axis", 0)) % len(shape)
    size = shape[axis]
    matrix = np.zeros((size, picked.size))
    matrix[picked.reshape(-1) % size, np.arange(picked.size)] = 1
    lead, tail = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    gradient = t.reshape(site.dy, (lead, picked.size, tail))
    back = t.emit("MatMul", t.constant(matrix), gradient)
    return site.only_first(t.reshape(back, shape))


def _pad(site: Site) -> list[str | None]:
    if site.attrs.get("mode", b"constant") not in (b"constant", "constant"):
        raise NoGradientError("it repeats values at the edge")
    pads, axes = site.value(1), site.value(3)
    rank = len(site.shape(site.x))
    if pads is None:
        raise NoGradientError("its pads are left out")
    at = range(rank) if axes is None else [int(a) % rank for a in axes]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(at):
        before[axis], after[axis] = -int(pads[i]), -int(pads[i + len(pads) // 2])
    return site.only_first(site.tape.pad(site.dy, before, after))


def _expand(site: Site) -> list[str | None]:
    return site.only_first(site.tape.unbroadcast(site.dy, site.shape(site.y), site.shape(site.x)))


def _tile(site: Site) -> list[str | None]:
    t, shape, whole = site.tape, site.shape(site.x), site.shape(site.y)
    apart = [n for size, all_ in zip(shape, whole, strict=True) for n in (all_ // size, size)]
    split = t.reshape(site.dy, apart)
    return site.only_first(t.reduce_sum(split, list(range(0, len(apart), 2))))


def _depth_to_space(site: Site) -> list[str | None]:
    t, (n, c, h, w) = site.tape, site.shape(site.x)
    b = int(site.attrs["blocksize"])
    x = t.reshape(site.dy, (n, c // b**2, h, b, w, b))
    crd = site.attrs.get("mode", b"DCR") in (b"CRD", "CRD")
    order = (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    return site.only_first(t.reshape(t.transpose(x, order), (n, c, h, w)))


def _space_to_depth(site: Site) -> list[str | None]:
    b = int(site.attrs["blocksize"])
    return site.only_first(site.tape.emit("DepthToSpace", site.dy, blocksize=b, mode="DCR"))


def _resize(site: Site) -> list[str | None]:
    """Resizing is linear, axis by axis: the transposed matrix of each axis takes it back."""
    t, shape, whole = site.tape, site.shape(site.x), site.shape(site.y)
    if site.attrs.get("coordinate_transformation_mode") in (b"tf_crop_and_resize",):
        raise NoGradientError("it crops by a region")
    if "axes" in site.attrs or site.attrs.get("antialias"):
        raise NoGradientError("its axes or antialiasing")
    gradient, rank = site.dy, len(shape)
    for axis in range(rank):
        if shape[axis] == whole[axis]:
            continue
        matrix = _resize_matrix(site, axis)
        order = [*(i for i in range(rank) if i != axis), axis]
        moved = t.emit("MatMul", t.transpose(gradient, order), t.constant(matrix))
        gradient = t.transpose(moved, np.argsort(order).tolist())
    return site.only_first(gradient)


def _resize_matrix(site: Site, axis: int) -> Floats:
    """(size after, size before) of one axis, by resizing unit vectors."""
    before, after = site.shape(site.x)[axis], site.shape(site.y)[axis]
    node = onnx.NodeProto()
    node.CopyFrom(site.node)
    del node.input[:]
    scales = site.value(2) if len(site.node.input) > 2 else None
    eye = np.eye(before, dtype=np.float32)[:, None, :, None]
    if scales is not None and scales.size:
        node.input.extend(["x", "", "scales"])
        asked = np.asarray([1, 1, scales[axis], 1], np.float32)
        inputs = [eye, None, asked]
    else:
        node.input.extend(["x", "", "", "sizes"])
        inputs = [eye, None, None, np.asarray([before, 1, after, 1], np.int64)]
    try:
        (found,) = evaluate_node(node, inputs, 18)
    except EvaluationError as error:
        raise NoGradientError(f"its matrix: {error}") from error
    matrix: Floats = np.asarray(found, np.float64).reshape(before, after).T
    return matrix


RULES: dict[str, Rule] = {
    "Cast": _cast,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _same,
    "Expand": _expand,
    "Flatten": _reshaped,
    "Gather": _gather,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshaped,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshaped,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshaped,
}
