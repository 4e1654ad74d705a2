"""Slice the stored tensors of a model: which initializer loses which indices along which axis.

A claim names the parameter as its node reads it. Here the claims are carried back through
Identity, Cast, Transpose and DequantizeLinear to what is stored; where users of one stored tensor
need different slices (biases that the exporter tied because both were zero), each gets its own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.graph.channels.carrying import Removed, push
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask, line
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.rewrite.filling import Filling, without
from onnx_esn.graph.stored import add_initializer, constant_value

User = tuple[int, int]  # (node index, input slot)


@dataclass(frozen=True)
class TensorSlice:
    """Indices removed from one axis of one stored tensor.

    Attributes:
        tensor: name of the initializer (or of the Constant node's output).
        axis: axis that is sliced.
        removed: removed indices, ascending.
        users: names of the nodes this holds for; empty when it holds for all of them.
    """

    tensor: str
    axis: int
    removed: tuple[int, ...]
    users: tuple[str, ...] = ()


@dataclass
class Slicing:
    """What `slice_tensors` did.

    Attributes:
        slices: the slices, for the plan.
        added: tensors that were not there before.
        filling: large tensors, to be put in when the rewriting is done.
    """

    slices: list[TensorSlice] = field(default_factory=list)
    added: list[onnx.TensorProto] = field(default_factory=list)
    filling: Filling = field(default_factory=Filling)


def removed_along(labels: NDArray[np.int64], removed: Mask, what: str) -> Removed:
    """The axis of a compact label array that loses indices, and which.

    Raises:
        ValueError: the removed positions are not slices along one axis.
    """
    gone = removed[labels]
    if not gone.any():
        return {}
    thick = [axis for axis, n in enumerate(gone.shape) if n > 1]
    if len(thick) == 1:
        return {thick[0]: tuple(np.flatnonzero(gone).tolist())}
    for axis in range(gone.ndim):
        if gone.shape[axis] > 1:
            hit = gone.any(axis=tuple(a for a in range(gone.ndim) if a != axis))
            shape = [1] * gone.ndim
            shape[axis] = -1
            if bool((gone == hit.reshape(shape)).all()):
                return {axis: tuple(int(i) for i in np.flatnonzero(hit))}
    raise ValueError(f"the removed positions of {what} are not slices along one axis")


def demands(analysis: Analysis, removed: Mask) -> dict[User, Removed]:
    """What each reader of a parameter needs removed from it."""
    result: dict[User, Removed] = defaultdict(dict)
    for claim in analysis.propagation.claims:
        result[claim.node, claim.slot].update(removed_along(claim.labels, removed, claim.tensor))
    return {user: cut for user, cut in result.items() if cut}


def claimed_sources(
    analysis: Analysis,
) -> dict[tuple[str, int], list[tuple[str, NDArray[np.int64]]]]:
    """For each (tensor, axis) that can be sliced: (its reader's name, label vector along the axis).

    The inverse of slicing: it tells which labels an entry of a plan speaks of. A tensor is a
    parameter as a node reads it, or what it is derived from.
    """
    constants, names = analysis.constants, analysis.names
    producers = analysis.propagation.producers
    result: dict[tuple[str, int], list[tuple[str, Labels]]] = defaultdict(list)

    def note(tensor: str, axis: int, reader: int, labels: Labels) -> None:
        result[tensor, axis].append((names[reader], labels))
        node = constants.producer.get(tensor)
        if node is None or tensor in constants.initializers:
            return
        for slot, cut in (push(constants, node, {axis: ()}) or {}).items():
            for inner in cut:
                note(node.input[slot], inner, producers[tensor], labels)

    for claim in analysis.propagation.claims:
        for axis, n in enumerate(claim.labels.shape):
            if n > 1:
                note(claim.tensor, axis, claim.node, line(claim.labels, axis))
    return result


def slice_tensors(analysis: Analysis, model: onnx.ModelProto, cuts: dict[User, Removed]) -> Slicing:
    """Apply the cuts to `model`, a copy of the analysed one `without_values`.

    It gets its tensors, cut, and its nodes read what is theirs; of large tensors it gets stand-ins.
    """
    work = _Work(analysis, model, cuts)
    constant_nodes = [
        (i, node)
        for i, node in enumerate(model.graph.node)
        if node.output and any(o in analysis.constants.producer for o in node.output if o)
    ]
    for i, node in reversed(constant_nodes):
        for name in node.output:
            if name and name not in analysis.constants.initializers:
                work.settle(name, i)
    for name in list(analysis.constants.initializers):
        work.settle(name, None)
    for tensor in analysis.model.graph.initializer:
        if tensor.name not in work.cut:
            work.cut[tensor.name] = work.filling.initializer(tensor, {}, tensor.name)
        model.graph.initializer.append(work.cut[tensor.name])
    for tensor in work.done.added:
        add_initializer(model, tensor)
    return work.done


class _Work:
    def __init__(
        self, analysis: Analysis, model: onnx.ModelProto, cuts: dict[User, Removed]
    ) -> None:
        self.constants, self.node_names = analysis.constants, analysis.names
        self.model, self.cuts = model, dict(cuts)
        self.done = Slicing()
        self.filling = self.done.filling
        for node in analysis.model.graph.node:
            self.filling.keep(node)
        self.users: dict[str, list[User]] = defaultdict(list)
        self.pinned = {o.name for o in model.graph.output}
        for i, node in enumerate(model.graph.node):
            for slot, name in enumerate(node.input):
                if name:
                    self.users[name].append((i, slot))
            self.pinned.update(captured(node))
        self.names = {n for node in model.graph.node for n in (*node.input, *node.output)}
        self.names |= set(self.constants.initializers)
        self.cut: dict[str, onnx.TensorProto] = {}

    def settle(self, name: str, producer: int | None) -> None:
        """Give every reader of `name` what it asks for."""
        wishes: dict[tuple[tuple[int, tuple[int, ...]], ...], list[User]] = defaultdict(list)
        for user in self.users[name]:
            wishes[tuple(sorted(self.cuts.get(user, {}).items()))].append(user)
        if name in self.pinned:
            wishes.setdefault((), [])
        cuts = [(dict(key), users) for key, users in wishes.items() if key]
        if not cuts:
            return
        shared = len(wishes) > 1
        in_place = None if () in wishes else max(cuts, key=lambda c: len(c[1]))
        for cut, users in cuts:
            if (cut, users) == in_place:
                self._cut(name, producer, cut, users, shared)
            else:
                self._copy(name, cut, users)

    def _cut(
        self, name: str, producer: int | None, cut: Removed, users: list[User], shared: bool
    ) -> None:
        if producer is not None:
            node = self.model.graph.node[producer]
            pushed = push(self.constants, node, cut)
            if pushed is not None:
                for slot, part in pushed.items():
                    self.cuts[producer, slot] = part
                return
            if node.op_type != "Constant":
                self._copy(name, cut, users)
                return
            old = constant_value(self.constants.producer[name])
            make = partial(self._made, name, cut, name)
            value = make() if old is None else self.filling.constant(old, cut, name, make)
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", value))
        else:
            old = self.constants.initializers[name]
            self.cut[name] = self.filling.initializer(old, cut, name)
        self._note(name, cut, users, shared)

    def _copy(self, name: str, cut: Removed, users: list[User]) -> None:
        fresh = f"{name}_{self.node_names[users[0][0]]}"
        while fresh in self.names:
            fresh += "_"
        self.names.add(fresh)
        if name in self.constants.initializers:
            tensor = self.filling.initializer(self.constants.initializers[name], cut, fresh)
        else:
            old = constant_value(self.constants.producer[name])
            make = partial(self._made, name, cut, fresh)
            tensor = make() if old is None else self.filling.made(old, cut, fresh, make)
        self.done.added.append(tensor)
        for node, slot in users:
            self.model.graph.node[node].input[slot] = fresh
        self._note(name, cut, users, shared=True)

    def _made(self, name: str, cut: Removed, fresh: str) -> onnx.TensorProto:
        return numpy_helper.from_array(without(self.constants.value(name), cut), fresh)

    def _note(self, name: str, cut: Removed, users: list[User], shared: bool) -> None:
        readers = tuple(sorted({self.node_names[n] for n, _ in users})) if shared else ()
        for axis in sorted(cut):
            self.done.slices.append(TensorSlice(name, axis, cut[axis], readers))
