"""Mend what no longer fits after the tensors were sliced.

Reshape targets, split sizes, slice windows, gather indices, pads: a channel count or position may
be written into any of them. Only nodes whose result is not what it should be are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.graph.channel_labels import Labels, Mask, line, varying_axes
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.movement import slice_window
from onnx_esn.graph.shapes import Facts, Shape, describe

Array = NDArray[Any]


class RepairError(Exception):
    """The node cannot be mended."""


@dataclass
class Site:
    """A node to mend, with what is known around it.

    Attributes:
        node: the node, edited in place.
        facts: facts of the rewritten graph up to this node, at two sizes.
        old: facts of the original graph, at the same two sizes.
        expected: shapes its outputs must have, at the two sizes.
        labels: labels of its data input in the original graph.
        out_labels: labels of its outputs in the original graph.
        removed: per label, whether it went.
        opset: version of the default operator set.
        fresh: makes an unused tensor name.
    """

    node: onnx.NodeProto
    facts: Sequence[Facts]
    old: Sequence[Facts]
    expected: Sequence[list[Shape]]
    labels: Labels | None
    out_labels: list[Labels | None]
    removed: Mask
    opset: int
    fresh: Callable[[str], str]
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)

    def constant(self, value: Array, hint: str) -> str:
        """Store a new constant and return its name."""
        name = self.fresh(f"{self.node.output[0]}_{hint}")
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def set_input(self, slot: int, name: str) -> None:
        """Replace an input, filling left-out ones before it."""
        while len(self.node.input) <= slot:
            self.node.input.append("")
        self.node.input[slot] = name

    def set_attribute(self, name: str, value: Any) -> None:
        """Replace an attribute."""
        self.drop_attribute(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        """Remove an attribute if it is there."""
        for a in list(self.node.attribute):
            if a.name == name:
                self.node.attribute.remove(a)


def labelled_axis(labels: Labels, removed: Mask) -> int:
    """The axis of a compact label array along which positions went."""
    gone = removed[labels]
    axes = varying_axes(gone)
    if len(axes) != 1:
        raise RepairError("its channels lie on more than one axis")
    return axes[0]


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
        if any(t is None and flat[i] != expected[0][i] for i, t in enumerate(target)):
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


def _reshape(site: Site) -> None:
    if "shape" in attributes(site.node):
        raise RepairError("its target shape is an attribute")
    _target(site, 1, 0)


def _expand(site: Site) -> None:
    _target(site, 1, 1)


def _constant_of_shape(site: Site) -> None:
    _target(site, 0, None)


def _resize(site: Site) -> None:
    if len(site.node.input) < 4 or not site.node.input[3]:
        raise RepairError("it resizes channels")
    _target(site, 3, None)


def _positions(site: Site) -> tuple[int, list[int]]:
    """Axis, and for each surviving output position the surviving input position it reads."""
    assert site.labels is not None
    axis = labelled_axis(site.labels, site.removed)
    kept = ~site.removed[line(site.labels, axis)]
    return axis, [int(v) for v in np.where(kept, np.cumsum(kept) - 1, -1)]


def _slice(site: Site) -> None:
    axis, new = _positions(site)
    params = [site.old[0].values.get(i) if i else None for i in site.node.input]
    window = slice_window(attributes(site.node), params, site.old[0].shapes[site.node.input[0]])
    reads = [p for p in np.array(new)[window[axis]] if p >= 0]
    if not reads:
        raise RepairError("nothing of its window is left")
    steps = np.diff(reads)
    if len(reads) == 1 or (steps == 1).all():
        _set_window(site, axis, reads[0], reads[-1] + 1, window)
        return
    # Not a range any more: take everything, then gather.
    _set_window(site, axis, 0, np.iinfo(np.int64).max, window)
    data = site.fresh(f"{site.node.output[0]}_all")
    out = site.node.output[0]
    site.node.output[0] = data
    site.after.append(
        helper.make_node(
            "Gather",
            [data, site.constant(np.array(reads, np.int64), "kept")],
            [out],
            name=site.fresh(f"{out}_gather"),
            axis=axis,
        )
    )


def _set_window(site: Site, axis: int, start: int, end: int, window: Any) -> None:
    attrs = attributes(site.node)
    if "starts" in attrs:
        axes = list(attrs.get("axes", range(len(attrs["starts"]))))
        rank = len(window)
        k = [a % rank for a in axes].index(axis)
        for name, value in (("starts", start), ("ends", end)):
            values = list(attrs[name])
            values[k] = value
            site.set_attribute(name, values)
        return
    values = [site.old[0].values.get(i) if i else None for i in site.node.input]
    others = [site.old[1].values.get(i) if i else None for i in site.node.input]
    starts, ends = values[1], values[2]
    if starts is None or ends is None:
        raise RepairError("its window is computed at run time")
    axes_value = values[3] if len(values) > 3 else None
    axes = [int(v) for v in (axes_value if axes_value is not None else np.arange(starts.size))]
    k = [a % len(window) for a in axes].index(axis)
    for slot, value in ((1, start), (2, end)):
        old, other = values[slot], others[slot]
        assert old is not None
        if other is None or any(old[i] != other[i] for i in range(old.size) if i != k):
            raise RepairError("part of its window moves with a dynamic axis")
        new = old.copy()
        new[k] = min(value, np.iinfo(new.dtype).max)
        site.set_input(slot, site.constant(new, ("", "starts", "ends")[slot]))
    if len(values) > 4 and values[4] is not None and values[4][k] != 1:
        new = values[4].copy()
        new[k] = 1
        site.set_input(4, site.constant(new, "steps"))


def _split(site: Site) -> None:
    axis = attributes(site.node).get("axis", 0)
    sizes = [s[axis] for s in site.expected[0]]
    if min(sizes) == 0:
        raise RepairError("one of its parts is empty")
    site.drop_attribute("num_outputs")
    if site.opset >= 13:
        site.set_input(1, site.constant(np.array(sizes, np.int64), "split"))
    else:
        site.set_attribute("split", sizes)


def _gather(site: Site) -> None:
    _, new = _positions(site)
    indices = site.old[0].values.get(site.node.input[1])
    if indices is None:
        raise RepairError("its indices are computed at run time")
    moved = np.array(new)[indices.astype(np.int64)]
    if indices.ndim == 0:
        if moved < 0:
            raise RepairError("it reads a removed channel")
    else:
        if indices.ndim > 1:
            raise RepairError("its indices have more than one axis")
        moved = moved[moved >= 0]
    site.set_input(1, site.constant(moved.astype(indices.dtype), "indices"))


def _pad(site: Site) -> None:
    (out,) = site.out_labels[:1]
    assert out is not None
    axis = labelled_axis(out, site.removed)
    kept = ~site.removed[line(out, axis)]
    attrs = attributes(site.node)
    shape = site.old[0].shapes[site.node.input[0]]
    rank = len(shape)
    if "pads" in attrs:
        pads = np.array(attrs["pads"], np.int64)
        axes = list(range(rank))
    else:
        values, others = (f.values.get(site.node.input[1]) for f in site.old)
        if values is None or others is None or not np.array_equal(values, others):
            raise RepairError("its pads move with a dynamic axis")
        pads = values.reshape(-1).copy()
        named = site.old[0].values.get(site.node.input[3]) if len(site.node.input) > 3 else None
        axes = [int(v) % rank for v in named] if named is not None else list(range(rank))
    k = axes.index(axis)
    before = int(pads[k])
    pads[k] = int(kept[:before].sum())
    pads[len(axes) + k] = int(kept[before + shape[axis] :].sum())
    if "pads" in attrs:
        site.set_attribute("pads", [int(v) for v in pads])
    else:
        site.set_input(1, site.constant(pads, "pads"))


_REPAIRS: dict[str, Callable[[Site], None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
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
