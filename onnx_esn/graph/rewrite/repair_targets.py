"""Mend shapes that are written into a node: targets of Reshape, Expand, ConstantOfShape, Resize."""

from __future__ import annotations

import numpy as np
from onnx import helper

from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.rewrite.repair_site import RepairError, Site


def _target(site: Site, slot: int, copy_marker: int | None) -> None:
    """Rewrite a computed or stored target shape in input `slot`."""
    a, b = site.expected[0][0], site.expected[1][0]
    source = site.node.input[0]
    in_a, in_b = site.facts[0].shapes.get(source), site.facts[1].shapes.get(source)
    target: list[int | None] = []
    for axis, (m, n) in enumerate(zip(a, b, strict=True)):
        if m == n:
            target.append(m)
        elif (
            copy_marker is not None
            and in_a is not None
            and in_b is not None
            and axis < len(in_a)
            and (copy_marker == 0 or len(in_a) == len(a))
            and in_a[axis] == m
            and in_b[axis] == n
        ):
            target.append(copy_marker)
        else:
            target.append(None)
    if target.count(None) == 1 and site.node.op_type == "Reshape":
        target[target.index(None)] = -1
    if None not in target:
        if site.node.op_type == "Reshape":
            site.drop_attribute("allowzero")
        site.set_input(slot, site.constant(np.array(target, np.int64), "shape"))
        return
    _patch_runtime_target(site, slot, target)


def _patch_runtime_target(site: Site, slot: int, target: list[int | None]) -> None:
    """Several sizes stay computed: overwrite the others in the computed target."""
    name = site.node.input[slot] if slot < len(site.node.input) else ""
    for facts, expected in zip(site.facts, site.expected, strict=True):
        value = facts.values.get(name)
        if value is None or value.size != len(target):
            raise RepairError("its target shape is computed from data")
        flat = value.reshape(-1)
        computed = [i for i, t in enumerate(target) if t is None]
        left = [i for i in computed if flat[i] == -1]  # one may be left to the Reshape
        if len(left) > 1 or any(flat[i] not in (-1, expected[0][i]) for i in computed):
            raise RepairError("its target shape is computed from a channel count")
    keep = np.array([t is None for t in target])
    values = np.array([t if t is not None else 1 for t in target], np.int64)
    patched = site.fresh(f"{site.node.output[0]}_shape")
    site.before.append(
        helper.make_node(
            "Where",
            [site.constant(keep, "computed"), name, site.constant(values, "sizes")],
            [patched],
            name=patched,
        )
    )
    site.set_input(slot, patched)


def mend_reshape(site: Site) -> None:
    """Reshape: copied axes stay 0, one computed axis becomes −1."""
    if "shape" in attributes(site.node):
        raise RepairError("its target shape is an attribute")
    _target(site, 1, 0)


def mend_expand(site: Site) -> None:
    """Expand: 1 keeps the size of the input."""
    _target(site, 1, 1)


def mend_constant_of_shape(site: Site) -> None:
    """ConstantOfShape: the shape is its input."""
    _target(site, 0, None)


def mend_resize(site: Site) -> None:
    """Resize with sizes; with scales it needs no mending."""
    if len(site.node.input) < 4 or not site.node.input[3]:
        raise RepairError("it resizes channels")
    _target(site, 3, None)
