"""The graph of one training step: the model, how far it is from its targets, and the gradients.

    loss = Σ_outputs divergence + weight · mean_features ‖s − t‖²/‖t‖²

An output of class scores diverges by the Kullback–Leibler divergence of its softmax from that of
the target, any other by its normalised squared error. Weights and targets are inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnx_esn.errors import OperationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.gradients.backward import append_backward
from onnx_esn.graph.gradients.pad_fusion import fuse_pads
from onnx_esn.graph.gradients.preparing import (
    differentiable,
    fix_inputs,
    infer_appended,
    tensor_info,
)
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.shapes import infer_facts
from onnx_esn.numerics.output_error import channel_axis

Array = npt.NDArray[Any]
_TARGET = "learning.target."
# Between the scores themselves, which say little where the reference is sure, and all alike.
_TEMPERATURE = 2.0
_LEAST_PROBABILITY = 1e-7  # whose logarithm float32 still tells from that of 0


class Kind(Enum):
    """What a tensor holds: class scores or probabilities (N, C, 1, …), or other values.

    Those of an output may be in a unit of their own in each channel (`numerics.output_error`).
    """

    SCORES = "scores"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    CHANNELS = "channels"


@dataclass(frozen=True)
class Target:
    """A tensor of the model that should come close to what is given.

    Attributes:
        tensor: its name.
        weight: of its term.
        kind: how it is compared: scores by their softmax.
        judged: whether it counts where what was learned is judged; else it only guides.
    """

    tensor: str
    weight: float
    kind: Kind = Kind.VALUES
    judged: bool = True

    @property
    def feed(self) -> str:
        """Name of the input that gives the target."""
        return _TARGET + self.tensor


@dataclass(frozen=True)
class TrainingGraph:
    """What `training_graph` makes.

    Attributes:
        model: inputs are the images, the targets (`Target.feed`) and the parameters.
        loss: its output with the loss.
        gradients: its output by parameter; a parameter that nothing depends on is missing.
        blocked: (node, reason) where no gradient goes through.
    """

    model: onnx.ModelProto
    loss: str
    gradients: Mapping[str, str]
    blocked: tuple[tuple[str, str], ...]


def training_graph(
    model: onnx.ModelProto,
    parameters: Sequence[str],
    targets: Sequence[Target],
    sizes: Mapping[str, Shape],
) -> TrainingGraph:
    """Make the graph.

    Args:
        model: its initializers of these names become inputs; float32.
        parameters: the names.
        targets: at least one.
        sizes: shapes of the model's inputs, batch included.

    Raises:
        OperationError: the shape of a target is unknown, or the operator set cannot be raised.
    """
    graph_model = differentiable(model)
    graph = graph_model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer if t.name in set(parameters)}
    facts = infer_facts(graph_model, sizes, Constants(graph_model))
    fuse_pads(graph, facts)
    _to_inputs(graph, shapes, facts)
    fix_inputs(graph, facts, sizes)
    del graph.output[:]
    loss = _append_loss(graph_model, facts, targets)
    found = append_backward(graph_model, facts, loss, list(parameters))
    graph.output.append(helper.make_tensor_value_info(loss, TensorProto.FLOAT, ()))
    for name, gradient in found.gradients.items():
        graph.output.append(tensor_info(gradient, facts, shapes[name], facts.types[name]))
    return TrainingGraph(graph_model, loss, dict(found.gradients), found.blocked)


def _to_inputs(graph: onnx.GraphProto, shapes: Mapping[str, Shape], facts: Facts) -> None:
    declared = {info.name for info in graph.input}
    kept = [t for t in graph.initializer if t.name not in shapes]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name, shape in shapes.items():
        facts.values.pop(name, None)
        if name not in declared:
            graph.input.append(tensor_info(name, facts, shape))


def _append_loss(model: onnx.ModelProto, facts: Facts, targets: Sequence[Target]) -> str:
    """Append the loss; its name. The facts learn the shapes on the way to it."""
    tape = Tape(model.graph, facts, np.float32)
    first, terms, given = len(model.graph.node), [], []
    for target in targets:
        shape = facts.shapes.get(target.tensor)
        if shape is None:
            raise OperationError(f"the shape of '{target.tensor}' is unknown: it cannot be learned")
        feed = tensor_info(target.feed, facts, shape, TensorProto.FLOAT)
        model.graph.input.append(feed)
        given += [feed, tensor_info(target.tensor, facts, shape)]
        values = target.kind in (Kind.VALUES, Kind.CHANNELS)
        term = _error(tape, target, shape) if values else _divergence(tape, target, shape)
        terms.append(tape.emit("Mul", term, tape.constant(target.weight)))
    loss = tape.add(terms)
    infer_appended(model, facts, first, given)
    return loss


def _divergence(t: Tape, target: Target, shape: Shape) -> str:
    """Mean over samples of Σ p·(log p − log q)."""
    logs = [_logarithm(t, name, target.kind) for name in (target.feed, target.tensor)]
    p = t.emit("Exp", logs[0])
    total = t.reduce_sum(t.emit("Mul", p, t.emit("Sub", *logs)), list(range(len(shape))))
    factor = _TEMPERATURE if target.kind is Kind.SCORES else 1.0
    return t.emit("Mul", total, t.constant(factor * shape[1] / math.prod(shape)))


def _logarithm(t: Tape, name: str, kind: Kind) -> str:
    """Of the probabilities (N, C, 1, …) that a tensor stands for."""
    if kind is Kind.SCORES:
        return t.emit("LogSoftmax", t.emit("Mul", name, t.constant(1 / _TEMPERATURE)), axis=1)
    return t.emit("Log", t.emit("Max", name, t.constant(_LEAST_PROBABILITY)))


def _error(t: Tape, target: Target, shape: Shape) -> str:
    """Σ(s − t)²/Σt², or the mean of noise/(signal + noise) over the channels."""
    axis = channel_axis(shape) if target.kind is Kind.CHANNELS else None
    axes = [a for a in range(len(shape)) if a != axis]
    apart = t.emit("Sub", target.tensor, target.feed)
    noise = t.reduce_sum(t.emit("Mul", apart, apart), axes)
    signal = t.reduce_sum(t.emit("Mul", target.feed, target.feed), axes)
    if axis is None:
        return t.emit("Div", noise, t.emit("Add", signal, t.constant(1e-12)))
    whole = t.emit("Add", t.emit("Add", signal, noise), t.constant(1e-12))
    total = t.reduce_sum(t.emit("Div", noise, whole), [0])
    return t.emit("Mul", total, t.constant(1.0 / shape[axis]))
