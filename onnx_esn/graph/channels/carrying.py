"""Carry what is removed from a parameter back through the nodes that it is computed by."""

from __future__ import annotations

import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.quant_operators import is_quant

Removed = dict[int, tuple[int, ...]]  # by axis, the indices that go


def push(constants: Constants, node: onnx.NodeProto, cut: Removed) -> dict[int, Removed] | None:
    """Carry a cut from the output of a constant node to its inputs; None where not known."""
    if node.op_type in ("Identity", "Cast", "CastLike"):
        return {0: cut}
    if node.op_type == "Transpose":
        rank = len(constants.shape(node.input[0]))
        perm = attributes(node).get("perm") or list(range(rank))[::-1]
        return {0: {perm[axis]: gone for axis, gone in cut.items()}}
    if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        return _push_scales(constants, node, cut)
    if is_quant(node):
        return _push_operands(constants, node, cut)
    return None


def _push_operands(constants: Constants, node: onnx.NodeProto, cut: Removed) -> dict[int, Removed]:
    """The operands of a Quant lose what they have along the axes that are cut."""
    rank = len(constants.shape(node.input[0]))
    result = {0: cut}
    for slot in range(1, len(node.input)):
        shape = constants.shape(node.input[slot])
        ahead = rank - len(shape)
        result[slot] = {
            axis - ahead: gone
            for axis, gone in cut.items()
            if axis >= ahead and shape[axis - ahead] > 1
        }
    return result


def _push_scales(
    constants: Constants, node: onnx.NodeProto, cut: Removed
) -> dict[int, Removed] | None:
    """Scales and zero points go with the values: per tensor, per axis, or per block of an axis."""
    attrs = attributes(node)
    axis = attrs.get("axis", 1) % max(len(constants.shape(node.input[0])), 1)
    block = attrs.get("block_size", 0)
    scales = cut
    if block and axis in cut:
        gone = cut[axis]
        whole = tuple(sorted({i // block for i in gone}))
        if len(gone) != block * len(whole):
            return None  # part of a block: what is left does not share its scale any more
        scales = {**cut, axis: whole}
    result = {0: cut}
    for slot in range(1, len(node.input)):
        if node.input[slot] and constants.shape(node.input[slot]) not in ((), (1,)):
            result[slot] = scales if block else {0: cut[axis]} if axis in cut else {}
    return result
