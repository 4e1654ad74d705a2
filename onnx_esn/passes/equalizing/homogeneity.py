"""Which operators give t·y for t·x, channel by channel: label rules for scaling.

The walk is that of `graph.channels`, with other rules. A label is a factor t > 0 that the positions
carrying it are multiplied with; label 0 is the factor 1. Layers and BatchNormalization issue labels
and claim parameters: role "filter" or "param" is multiplied with t, role "input" divided by it.
What is added, or compared, has to have one factor: labels are tied. An operator without a rule
locks what it reads.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels import rules_mixing as mixing
from onnx_esn.graph.channels import rules_movement as moving
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation, Rule, align
from onnx_esn.graph.channels.rules_elementwise import joined
from onnx_esn.graph.movement import MOVES, MovementError, compact, expand
from onnx_esn.graph.node_names import describe

# f(t·x) = t·f(x) for any t > 0.
UNARY = ("Abs", "LeakyRelu", "Neg", "Relu")
SUMS = ("Add", "Max", "Mean", "Min", "Sub", "Sum")
POOLS = (
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
)  # fmt: skip
REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


def through(p: Propagation, node: onnx.NodeProto) -> None:
    """An operator of one tensor, with slopes or the like that stay as they are."""
    x = p.get(node.input[0])
    for name in node.input[1:]:
        p.space.lock(p.get(name) if name else None, f"steers {describe(node)}")
    if x is not None:
        p.put(node.output[0], x)


def added(p: Propagation, node: onnx.NodeProto) -> None:
    """Broadcast operands that are added or compared: all have the factors of the result."""
    if "broadcast" in p.attrs(node):
        raise MovementError("it broadcasts as operators did before opset 7")
    rank = len(p.shape(node.output[0]))
    result: Labels | None = None
    for name in node.input:
        x = p.get(name)
        if x is None:
            continue
        x = align(x, rank)
        if result is not None:
            p.space.tie(result, x, f"combined in {describe(node)} with what has a fixed scale")
            x = compact(joined(result, x))
        result = x
    if result is None:
        return
    for slot, name in enumerate(node.input):
        if p.get(name) is None:
            meet(p, node, slot, result)
    p.put(node.output[0], result)


def meet(p: Propagation, node: onnx.NodeProto, slot: int, labels: Labels) -> None:
    """What is added to `labels` (compact, rank of the result) and carries none itself."""
    name = node.input[slot]
    fixed = f"combined in {describe(node)} with {name!r}, whose scale is fixed"
    if name not in p.constants:
        p.space.lock(labels, p.why_unlabelled(name) or fixed)
        return
    shape = p.constants.shape(name)
    rank = labels.ndim
    full = (1,) * (rank - len(shape)) + tuple(shape)
    if any(n > 1 and full[a] == 1 for a, n in enumerate(labels.shape)):
        if p.constants.value(name, keep=False).any():
            p.space.lock(labels, fixed)  # one number for several channels; zero is zero for all
        return
    p.claim(node, slot, labels.reshape(labels.shape[rank - len(shape) :]), "param")


def multiplied(p: Propagation, node: onnx.NodeProto) -> None:
    """Mul, Div: the factors of one operand pass, the others have to stay."""
    rank = len(p.shape(node.output[0]))
    first = p.get(node.input[0])
    passing = 0 if first is not None or node.op_type == "Div" else 1
    other = p.get(node.input[1 - passing])
    p.space.lock(other, f"multiplied in {describe(node)}")
    x = p.get(node.input[passing])
    if node.input[0] == node.input[1]:
        p.space.lock(x, f"multiplied in {describe(node)}")
    elif x is not None:
        p.put(node.output[0], align(x, rank))


def clip(p: Propagation, node: onnx.NodeProto) -> None:
    """Clip at 0 or not at all; other bounds do not move with the channel."""
    bounds = clip_bounds(p, node)
    if any(b is not None and b != 0.0 for b in bounds):
        raise MovementError("its bounds have a fixed scale")
    through(p, node)


def clip_all(p: Propagation, node: onnx.NodeProto) -> None:
    """Clip whose bounds are numbers: they can be given to each channel."""
    if any(clip_bounds(p, node)) and p.constants.opset.get("", 1) < 8:
        raise MovementError("Max and Min do not broadcast before opset 8")
    through(p, node)


def clip_bounds(p: Propagation, node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """The two bounds, None where there is none; raises MovementError where they are computed."""
    found: list[float | None] = []
    for slot, key in ((1, "min"), (2, "max")):
        value = p.attrs(node).get(key)
        if len(node.input) > slot and node.input[slot]:
            if node.input[slot] not in p.constants:
                raise MovementError("its bounds are computed at run time")
            value = float(p.constants.value(node.input[slot]).astype(np.float64).reshape(()))
        endless = value is None or abs(value) >= float(np.finfo(np.float32).max)
        found.append(None if endless else value)
    return found[0], found[1]


def cast(p: Propagation, node: onnx.NodeProto) -> None:
    """Cast to the same type; another one rounds, or overflows, at a fixed scale."""
    types = p.facts.types
    if types.get(node.input[0]) != types.get(node.output[0]) or node.input[0] not in types:
        raise MovementError("it changes the type")
    moving.movement(p, node)


def resize(p: Propagation, node: onnx.NodeProto) -> None:
    """Resize: linear in the values, if none come from outside."""
    if float(p.attrs(node).get("extrapolation_value", 0.0)) != 0.0:
        raise MovementError("it fills in a fixed value")
    mixing.spatial(p, node)


def concat(p: Propagation, node: onnx.NodeProto) -> None:
    """Concat: labels side by side."""
    found = [p.get(name) for name in node.input]
    if all(x is None for x in found):
        return
    rank = len(p.shape(node.output[0]))
    axis = int(p.attrs(node)["axis"]) % rank
    parts = [
        expand(np.zeros((1,) * rank, np.int64) if x is None else x, p.shape(name), [axis])
        for name, x in zip(node.input, found, strict=True)
    ]
    wide = np.broadcast_shapes(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in parts))
    full = [np.broadcast_to(x, (*wide[:axis], x.shape[axis], *wide[axis + 1 :])) for x in parts]
    p.put(node.output[0], compact(np.concatenate(full, axis)))


def pad(p: Propagation, node: onnx.NodeProto) -> None:
    """Pad: with zeros, or with what is there along axes without channels."""
    x = p.get(node.input[0])
    if x is None:
        return
    attrs = p.attrs(node)
    mode = attrs.get("mode", b"constant")
    before, after = moving.pad_amounts(p, node, x.ndim)
    axes = [a for a in range(x.ndim) if x.shape[a] > 1 and (before[a] or after[a])]
    if mode == b"constant":
        value = attrs.get("value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in p.constants:
                raise MovementError("it pads with what is computed at run time")
            value = p.constants.value(node.input[2]).astype(np.float64).reshape(-1)[0]
        if value != 0.0 or min(*before, *after) < 0:
            raise MovementError("it pads with a fixed value")
        x = np.pad(x, [(before[a], after[a]) if a in axes else (0, 0) for a in range(x.ndim)])
    elif axes:
        raise MovementError(f"it pads channels in mode {mode.decode()}")
    p.put(node.output[0], x)


HOMOGENEOUS: dict[str, Rule] = {
    **dict.fromkeys(MOVES, moving.movement),
    **dict.fromkeys((*UNARY, "PRelu"), through),
    **dict.fromkeys(SUMS, added),
    **dict.fromkeys(("Mul", "Div"), multiplied),
    **dict.fromkeys(POOLS, mixing.spatial),
    **dict.fromkeys(REDUCTIONS, mixing.reduction),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("Cast", "CastLike"), cast),
    "Clip": clip,
    "Concat": concat,
    "Pad": pad,
}
