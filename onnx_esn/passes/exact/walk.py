"""Run the graph on the numbers of `values`: which channels are equal, which constant.

One walk over the nodes. For each tensor that carries channel labels there is an array of numbers,
as large as the labels are along the axes where those change, and of size 1 along the others (the
*rest*: a number stands for a function of the positions there). An operator without a rule here
gives fresh numbers: nothing is known of its result.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.propagation import align
from onnx_esn.graph.evaluate import (
    EvaluationError,
    attributes,
    evaluate_node,
    is_standard,
)
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.passes.exact.values import Floats, Ids, Values, digest


@dataclass
class Walk:
    """State of the walk, and its result.

    Attributes:
        analysis: the labelled model.
        values: gives out the numbers.
        ids: array of numbers by tensor.
        layers: the layers whose filters have labels, by index of the node.
    """

    analysis: Analysis
    values: Values = field(default_factory=Values)
    ids: dict[str, Ids] = field(default_factory=dict)
    layers: dict[int, Layer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note what rules ask for often."""
        first = self.analysis.first_labels
        self.layers = {x.index: x for x in self.analysis.layers if x.index in first}
        self.opset = self.analysis.constants.opset.get("", 13)
        self._blocks: dict[tuple[str, tuple[int, ...]], Ids] = {}

    # What rules use.

    def shape(self, name: str) -> Shape:
        """Full shape of a tensor; KeyError where it is unknown."""
        return self.analysis.facts.shapes[name]

    def axes(self, name: str) -> list[int]:
        """Axes along which the labels of a tensor change."""
        return [a for a, n in enumerate(self.analysis.propagation.labels[name].shape) if n > 1]

    def rounded(self, value: Floats, name: str) -> Floats:
        """Values as the type of tensor `name` stores them."""
        kind = self.analysis.facts.types.get(name, 0)
        return round_to(value, kind) if kind in EPSILON else np.asarray(value, np.float64)

    def constant_ids(self, values: Floats) -> Ids:
        """Numbers of constants, in the shape of `values`."""
        flat = [self.values.constant(v) for v in values.reshape(-1).tolist()]
        return np.array(flat, np.int64).reshape(values.shape)

    def keyed(self, head: object, rows: NDArray[Any]) -> Ids:
        """A number for each row (P, …) of an array, told apart by `head` and their contents."""
        rows = np.ascontiguousarray(rows)
        keys = [r.tobytes() if r.nbytes <= 64 else digest(r) for r in rows]
        return np.array([self.values.of((head, k)) for k in keys], np.int64)

    def view(self, name: str, axes: Sequence[int], rank: int) -> Ids:
        """Numbers of a tensor, aligned to `rank`: full along `axes`, of size 1 along the others.

        Along an axis that is broadcast, the size is 1 as well.
        """
        shape = self.shape(name)
        full = (1,) * (rank - len(shape)) + shape
        if name in self.analysis.constants:
            return self._constant_view(align(self.analysis.constants.value(name), rank), axes)
        if name in self.ids:
            return self.project(align(self.ids[name], rank), full, axes)
        lead = rank - len(shape)
        wide = tuple(a - lead for a in axes if full[a] > 1)
        key = name, wide
        if key not in self._blocks:
            self._blocks[key] = self.values.fresh(math.prod(shape[a] for a in wide))
        return self._blocks[key].reshape([n if a in axes else 1 for a, n in enumerate(full)])

    def _constant_view(self, x: NDArray[Any], axes: Sequence[int]) -> Ids:
        rows = np.moveaxis(x, axes, range(len(axes)))
        out = rows.shape[: len(axes)]
        rows = rows.reshape(math.prod(out), -1)
        same = (rows == rows[:, :1]).all(axis=1)
        if rows.dtype.kind not in "fiub" and rows.dtype.itemsize > 2:
            raise EvaluationError("no numbers")
        ids = np.empty(len(rows), np.int64)
        ids[same] = self.constant_ids(rows[same, 0].astype(np.float64))
        ids[~same] = self.keyed(("stored", x.shape, str(x.dtype)), rows[~same])
        return self._laid(ids, out, axes, x.ndim)

    @staticmethod
    def _laid(ids: Ids, sizes: Sequence[int], axes: Sequence[int], rank: int) -> Ids:
        full = ids.reshape(*sizes, *[1] * (rank - len(axes)))
        return np.moveaxis(full, range(len(axes)), axes)

    def project(self, ids: Ids, shape: Shape, axes: Sequence[int]) -> Ids:
        """Numbers that change along other axes, as numbers for the positions along `axes`."""
        extra = [a for a, n in enumerate(ids.shape) if n > 1 and a not in axes]
        if extra:
            rows = np.moveaxis(ids, axes, range(len(axes)))
            sizes = rows.shape[: len(axes)]
            rows = rows.reshape(math.prod(sizes), -1)
            inner = tuple(-1 if a in axes else n for a, n in enumerate(shape))
            head = ("row", tuple(extra), inner)
            ids = self._laid(self._rows(rows, head), sizes, axes, ids.ndim)
        for axis in axes:
            if ids.shape[axis] == 1 and shape[axis] > 1:
                # Positions of what was the rest so far.
                rest = tuple(-1 if ids.shape[a] > 1 else n for a, n in enumerate(shape))
                wide = np.broadcast_to(
                    ids, [*ids.shape[:axis], shape[axis], *ids.shape[axis + 1 :]]
                )
                at = np.arange(shape[axis]).reshape(
                    [-1 if a == axis else 1 for a in range(ids.ndim)]
                )
                pairs = np.stack([wide, np.broadcast_to(at, wide.shape)], axis=-1)
                new = self.keyed(("at", axis, rest), pairs.reshape(-1, 2)).reshape(wide.shape)
                constant = ~np.isnan(self.values.constants(wide))
                ids = np.where(constant, wide, self.values.within(new, *self.values.ranges(wide)))
        return ids

    def _rows(self, rows: Ids, head: object) -> Ids:
        """A number for each row; that of a constant where the row is one constant."""
        ids = self.keyed(head, rows)
        same = (rows == rows[:, :1]).all(axis=1) & ~np.isnan(self.values.constants(rows[:, 0]))
        low, high = self.values.ranges(rows)
        ids = self.values.within(ids, low.min(axis=1), high.max(axis=1))
        return np.where(same, rows[:, 0], ids)

    def put(self, name: str, ids: Ids) -> None:
        """Set the numbers of an output (nothing, where it carries no labels)."""
        if name in self.analysis.propagation.labels:
            self.ids[name] = self.project(ids, self.shape(name), self.axes(name))

    def rest(self, name: str, axes: Sequence[int], rank: int) -> Shape:
        """Shape of a tensor, aligned to `rank`, less `axes`."""
        shape = self.shape(name)
        full = (1,) * (rank - len(shape)) + shape
        return tuple(n for a, n in enumerate(full) if a not in axes)

    def signature(self, node: onnx.NodeProto) -> tuple[object, ...]:
        """What tells the operator and its attributes from others."""
        parts = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        return (node.domain, node.op_type, *parts)


Rule = Callable[[Walk, int, onnx.NodeProto], None]


def number_values(analysis: Analysis, rules: dict[str, Rule]) -> Walk:
    """Walk the main graph once."""
    walk = Walk(analysis)
    labels = analysis.propagation.labels
    for index, node in enumerate(analysis.model.graph.node):
        made = [o for o in node.output if o in labels]
        if not made:
            continue
        rule = rules.get(node.op_type) if is_standard(node) else None
        try:
            if rule is not None:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rule(walk, index, node)
        except (MovementError, EvaluationError, ValueError, KeyError, IndexError, TypeError):
            pass  # unknown is a correct answer
        for name in made:
            if name not in walk.ids:
                shape = labels[name].shape
                walk.ids[name] = walk.values.fresh(math.prod(shape)).reshape(shape)
    return walk


def typed(value: Floats, kind: int) -> NDArray[Any]:
    """Values in the element type `kind` of a tensor."""
    return value.astype(helper.tensor_dtype_to_np_dtype(kind))


def run_node(walk: Walk, node: onnx.NodeProto, inputs: Sequence[NDArray[Any] | None]) -> Floats:
    """The first output of a node, as its type stores it."""
    out = np.asarray(evaluate_node(node, inputs, walk.opset)[0], np.float64)
    return walk.rounded(out, node.output[0])


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """One attribute of a node."""
    return attributes(node).get(name, default)
