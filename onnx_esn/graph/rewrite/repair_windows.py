"""Mend positions that are written into a node: Slice, Split, Gather, Pad."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from onnx_esn.graph.channels.labels import Labels, Mask, line, varying_axes
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.movement import slice_window
from onnx_esn.graph.rewrite.repair_site import RepairError, Site


def labelled_axis(labels: Labels, removed: Mask) -> int:
    """The axis of a compact label array along which positions went."""
    gone = removed[labels]
    axes = varying_axes(gone)
    if len(axes) != 1:
        raise RepairError("its channels lie on more than one axis")
    return axes[0]


def _positions(site: Site) -> tuple[int, list[int]]:
    """Axis, and for each surviving output position the surviving input position it reads."""
    assert site.labels is not None
    axis = labelled_axis(site.labels, site.removed)
    kept = ~site.removed[line(site.labels, axis)]
    return axis, [int(v) for v in np.where(kept, np.cumsum(kept) - 1, -1)]


def mend_slice(site: Site) -> None:
    """Slice: a window over what is left, or everything and then a Gather."""
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


def mend_split(site: Site) -> None:
    """Split: the sizes its parts have now."""
    axis = attributes(site.node).get("axis", 0)
    sizes = [s[axis] for s in site.expected[0]]
    if min(sizes) == 0:
        raise RepairError("one of its parts is empty")
    site.drop_attribute("num_outputs")
    if site.opset >= 13:
        site.set_input(1, site.constant(np.array(sizes, np.int64), "split"))
    else:
        site.set_attribute("split", sizes)


def mend_gather(site: Site) -> None:
    """Gather: indices of what is left."""
    _, new = _positions(site)
    indices = site.old[0].values.get(site.node.input[1])
    if indices is None:
        raise RepairError("its indices are computed at run time")
    moved = np.array(new)[indices.astype(np.int64)]
    gone = moved < 0
    if indices.ndim == 0 and gone:
        raise RepairError("it reads a removed channel")
    for axis in range(gone.ndim):
        whole = gone.all(axis=tuple(a for a in range(gone.ndim) if a != axis))
        moved, gone = (np.compress(~whole, x, axis) for x in (moved, gone))
    if gone.any():
        raise RepairError("what is left of its indices does not form a table")
    site.set_input(1, site.constant(moved.astype(indices.dtype), "indices"))


def mend_gather_nd(site: Site) -> None:
    """GatherND: rows of indices of what is left, in the column that addresses channels."""
    axis, new = _positions(site)
    indices = site.old[0].values.get(site.node.input[1])
    if indices is None or attributes(site.node).get("batch_dims", 0):
        raise RepairError("its indices are computed at run time")
    moved = indices.astype(np.int64)
    moved[..., axis] = np.array(new)[moved[..., axis]]
    gone = moved[..., axis] < 0
    for k in range(gone.ndim):
        whole = gone.all(axis=tuple(a for a in range(gone.ndim) if a != k))
        moved, gone = np.compress(~whole, moved, k), np.compress(~whole, gone, k)
    if gone.any():
        raise RepairError("what is left of its indices does not form a table")
    site.set_input(1, site.constant(moved.astype(indices.dtype), "indices"))


def mend_pad(site: Site) -> None:
    """Pad of channels: as many as are left on each side."""
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
