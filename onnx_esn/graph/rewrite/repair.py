"""Mend what no longer fits after the tensors were sliced.

Reshape targets, split sizes, slice windows, gather indices, pads: a channel count or position may
be written into any of them. Only nodes whose result is not what it should be are touched.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx_esn.graph.node_names import describe
from onnx_esn.graph.rewrite import repair_targets as targets
from onnx_esn.graph.rewrite import repair_windows as windows
from onnx_esn.graph.rewrite.repair_site import RepairError as RepairError
from onnx_esn.graph.rewrite.repair_site import Site as Site

_REPAIRS: dict[str, Callable[[Site], None]] = {
    "Reshape": targets.mend_reshape,
    "Expand": targets.mend_expand,
    "ConstantOfShape": targets.mend_constant_of_shape,
    "Resize": targets.mend_resize,
    "Slice": windows.mend_slice,
    "Split": windows.mend_split,
    "Gather": windows.mend_gather,
    "GatherND": windows.mend_gather_nd,
    "Pad": windows.mend_pad,
}


def mend(site: Site) -> None:
    """Edit the node so that its outputs are as expected.

    Raises:
        RepairError: there is no way known.
    """
    rule = _REPAIRS.get(site.node.op_type)
    if rule is None:
        raise RepairError(f"{describe(site.node)} depends on a channel count")
    rule(site)
