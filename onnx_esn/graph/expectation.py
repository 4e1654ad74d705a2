"""Expected value and variance of each channel, in closed form from the BatchNorm parameters.

Behind a BatchNormalization the channel is taken as N(β, γ²), exact constants excepted; elementwise
functions are integrated over that, data movement moves the moments, sums add them. Where the model
says nothing (a Conv without BatchNormalization, a product of channels), the value is NaN: unknown.
Arrays are compact, like labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.graph.evaluate import EvaluationError, attributes, evaluate_node
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.movement import MOVES, Move, MovementError, expand, move
from onnx_esn.graph.propagation import align, along
from onnx_esn.graph.rules import NARY, UNARY
from onnx_esn.numerics.activation_mean import gaussian_moments

Floats = NDArray[np.float64]

_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "Resize", "Upsample")


@dataclass(frozen=True)
class Expectation:
    """Moments of a tensor's channels; NaN where unknown, variance 0 where exactly constant."""

    mean: Floats
    variance: Floats


def expectations(analysis: Analysis) -> dict[str, Expectation]:
    """Expectation of every tensor that carries labels, by name; unknown ones are left out."""
    layers = {
        layer.index: layer
        for layer in find_layers(analysis.model, analysis.constants, analysis.facts)
    }
    walk = _Walk(analysis, layers)
    for index, node in enumerate(analysis.model.graph.node):
        if node.output and node.output[0] in analysis.propagation.labels:
            try:
                walk.visit(index, node)
            except (MovementError, EvaluationError, ValueError, KeyError):
                continue  # unknown is a correct answer
    return walk.found


class _Walk:
    def __init__(self, analysis: Analysis, layers: dict[int, Layer]) -> None:
        self.analysis, self.layers = analysis, layers
        self.shapes, self.values = analysis.facts.shapes, analysis.facts.values
        self.constants = analysis.constants
        self.found: dict[str, Expectation] = {}

    def visit(self, index: int, node: onnx.NodeProto) -> None:
        """Work out one node's outputs."""
        out = node.output[0]
        if index in self.layers:
            self.found[out] = self._layer(node, self.layers[index])
        elif node.op_type == "BatchNormalization":
            self.found[out] = self._batch_norm(node)
        elif node.op_type in MOVES:
            self._move(node)
        elif node.op_type == "Concat":
            self._concat(node)
        elif node.op_type in _POOLS or (
            node.op_type == "ReduceMean" and attributes(node).get("keepdims", 1)
        ):
            # Neighbouring positions are taken as equal: exact for the mean of an average.
            self.found[out] = self.found[node.input[0]]
        elif node.op_type in UNARY or node.op_type in NARY:
            self._elementwise(node)

    def _layer(self, node: onnx.NodeProto, layer: Layer) -> Expectation:
        """Zero filters give their bias; depthwise filters pass the mean on; the rest is unknown."""
        rows = layer.as_filters(self.constants.value(layer.weight)).astype(np.float64)
        zero = np.asarray(~rows.any(axis=1), np.bool_)
        bias = np.zeros(layer.filters)
        if layer.bias and layer.bias in self.constants:
            scale = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0
            value = self.constants.value(layer.bias).astype(np.float64) * scale
            bias = np.broadcast_to(value.reshape(-1), layer.filters)
        elif layer.bias:
            zero[:] = False
        rank = len(self.shapes[node.output[0]])
        axis = layer.channel_axis
        mean = np.where(zero, bias, np.nan)
        variance = np.where(zero, 0.0, np.nan)
        return Expectation(_laid(mean, axis, rank), _laid(variance, axis, rank))

    def _batch_norm(self, node: onnx.NodeProto) -> Expectation:
        names = node.input[1:5]
        gamma, beta, mean, var = (self.constants.value(n).astype(np.float64) for n in names)
        gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
        rank = len(self.shapes[node.output[0]])
        out_mean, out_var = beta.copy(), gamma**2
        before = self.found.get(node.input[0])
        if before is not None and before.mean.size == beta.size:
            m, v = before.mean.reshape(-1), before.variance.reshape(-1)
            constant = v == 0
            out_mean = np.where(constant, gain * (m - mean) + beta, out_mean)
            out_var = np.where(constant, 0.0, out_var)
        return Expectation(_laid(out_mean, 1, rank), _laid(out_var, 1, rank))

    def _move(self, node: onnx.NodeProto) -> None:
        source = self.found[node.input[0]]
        m = Move(
            node.op_type,
            attributes(node),
            [self.values.get(i) if i else None for i in node.input],
            self.shapes[node.input[0]],
            [self.shapes[o] if o else () for o in node.output],
        )
        for name, mean, variance in zip(
            node.output, move(m, source.mean), move(m, source.variance), strict=False
        ):
            if name:
                self.found[name] = Expectation(mean, variance)

    def _concat(self, node: onnx.NodeProto) -> None:
        axis = attributes(node)["axis"] % len(self.shapes[node.output[0]])
        operands = [self._operand(name) for name in node.input]
        shapes = [self.shapes[name] for name in node.input]

        def joined(parts: list[Floats]) -> Floats:
            full = [expand(x, s, [axis]) for x, s in zip(parts, shapes, strict=True)]
            return np.concatenate(full, axis)

        self.found[node.output[0]] = Expectation(
            joined([e.mean for e in operands]), joined([e.variance for e in operands])
        )

    def _operand(self, name: str) -> Expectation:
        if name in self.found:
            return self.found[name]
        if name in self.constants:
            value = self.constants.value(name).astype(np.float64)
            return Expectation(value, np.zeros_like(value))
        unknown = np.full((1,) * len(self.shapes[name]), np.nan)
        return Expectation(unknown, unknown)

    def _elementwise(self, node: onnx.NodeProto) -> None:
        out = node.output[0]
        rank = len(self.shapes[out])
        names = [n for n in node.input if n]
        operands = [self._operand(n) for n in names]
        means = [align(e.mean, rank) for e in operands]
        variances = [align(e.variance, rank) for e in operands]
        moving = [i for i, n in enumerate(node.input) if n and n not in self.constants]
        if node.op_type in ("Add", "Sum", "Sub"):
            signs = [1.0, -1.0] if node.op_type == "Sub" else [1.0] * len(names)
            mean = _sum([s * m for s, m in zip(signs, means, strict=True)])
            variance = _sum(variances)
        elif node.op_type == "Mul":
            # E[ab] of independent a, b; exact where one of them is constant.
            mean = means[0] * means[1]
            second = (variances[0] + means[0] ** 2) * (variances[1] + means[1] ** 2)
            exact = (variances[0] == 0) & (variances[1] == 0)
            variance = np.where(exact, 0.0, np.maximum(second - mean**2, 0.0))
        elif len(moving) == 1:
            mean, variance = self._function(node, moving[0], rank)
        else:
            return
        self.found[out] = Expectation(mean, variance)

    def _function(self, node: onnx.NodeProto, slot: int, rank: int) -> tuple[Floats, Floats]:
        """An elementwise function of one tensor, all other operands constant."""
        e = self.found[node.input[slot]]
        constants = [
            self.constants.value(n).astype(np.float64) if n and i != slot else None
            for i, n in enumerate(node.input)
        ]
        mean, variance = align(e.mean, rank), align(e.variance, rank)
        large = [align(c, rank) for c in constants if c is not None and c.size > 1]
        shape = np.broadcast_shapes(mean.shape, *(c.shape for c in large))
        if shape != mean.shape:
            raise ValueError("a constant varies where the channel does not")
        known = ~np.isnan(mean) & ~np.isnan(variance)
        std = np.sqrt(np.where(known, variance, 0.0))
        filled = np.where(known, mean, 0.0)
        opset = self.constants.opset.get("", 13)

        def evaluate(x: Floats, index: tuple[int, ...] | None) -> Floats:
            inputs: list[NDArray[np.generic] | None] = [
                x
                if i == slot
                else c
                if c is None or c.ndim == 0
                else c.reshape(())
                if c.size == 1
                else np.broadcast_to(align(c, rank), shape)[index or ()]
                for i, c in enumerate(constants)
            ]
            return np.asarray(evaluate_node(node, inputs, opset)[0], np.float64)

        if not large:
            out_mean, out_var = gaussian_moments(lambda x: evaluate(x, None), filled, std)
        else:
            out_mean, out_var = np.empty(shape), np.empty(shape)
            for index in np.ndindex(shape):
                m, v = gaussian_moments(
                    lambda x, k=index: evaluate(x, k),  # type: ignore[misc]
                    filled[index],
                    std[index],
                )
                out_mean[index], out_var[index] = m, v
        return np.where(known, out_mean, np.nan), np.where(known, out_var, np.nan)


def _sum(terms: list[Floats]) -> Floats:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _laid(vector: Floats, axis: int, rank: int) -> Floats:
    return along(vector, axis, rank)
