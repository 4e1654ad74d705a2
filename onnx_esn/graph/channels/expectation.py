"""Expected value and variance of each channel, in closed form from the BatchNorm parameters.

Behind a BatchNormalization the channel is taken as N(β, γ²), exact constants excepted; elementwise
functions are integrated over that (x·sigmoid(x) as one function of x), data movement moves the
moments, sums add them. Where the model says nothing (a Conv without BatchNormalization, a product
of channels), the value is NaN: unknown. Arrays are compact, like labels.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.integration import Functions
from onnx_esn.graph.channels.layer_moments import layer_expectation, norm_expectation
from onnx_esn.graph.channels.moments import Expectation, Floats
from onnx_esn.graph.channels.propagation import align
from onnx_esn.graph.channels.rules import NARY, UNARY
from onnx_esn.graph.evaluate import QUANTIZERS, EvaluationError, attributes
from onnx_esn.graph.movement import MOVES, Move, MovementError, expand, move
from onnx_esn.graph.window import padding_share

_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "Resize", "Upsample")


def expectations(analysis: Analysis) -> dict[str, Expectation]:
    """Expectation of every tensor that carries labels, by name; unknown ones are left out."""
    walk = _Walk(analysis)
    for index, node in enumerate(analysis.model.graph.node):
        if node.output and node.output[0] in analysis.propagation.labels:
            try:
                with np.errstate(all="ignore"):  # what is not finite counts as unknown
                    walk.visit(index, node)
            except (MovementError, EvaluationError, ValueError, KeyError):
                continue  # unknown is a correct answer
    return walk.found


class _Walk:
    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.layers = {layer.index: layer for layer in analysis.layers}
        self.shapes, self.values = analysis.facts.shapes, analysis.facts.values
        self.constants = analysis.constants
        self.found: dict[str, Expectation] = {}
        self.functions = Functions(self.constants)

    def visit(self, index: int, node: onnx.NodeProto) -> None:
        """Work out one node's outputs."""
        out = node.output[0]
        if index in self.layers:
            layer, source = self.layers[index], self.found.get(node.input[0])
            self.found[out] = layer_expectation(node, layer, source, self.constants, self.shapes)
        elif node.op_type == "BatchNormalization":
            before = self.found.get(node.input[0])
            self.found[out] = norm_expectation(node, before, self.constants, self.shapes)
        elif node.op_type in MOVES:
            self._move(node)
        elif node.op_type == "Concat":
            self._concat(node)
        elif node.op_type in _POOLS:
            self.found[out] = self._pool(node)
        elif node.op_type == "ReduceMean":
            self.found[out] = self._reduce(node)
        elif node.op_type in UNARY or node.op_type in NARY or node.op_type in QUANTIZERS:
            self._elementwise(node)

    def _move(self, node: onnx.NodeProto) -> None:
        source = self.found[node.input[0]]
        m = Move(
            node.op_type,
            attributes(node),
            [self.values.get(i) if i else None for i in node.input],
            self.shapes[node.input[0]],
            [self.shapes[o] if o else () for o in node.output],
        )
        means, variances = move(m, source.mean), move(m, source.variance)
        for name, mean, variance in zip(node.output, means, variances, strict=False):
            if name:
                self.found[name] = Expectation(mean, variance)

    def _concat(self, node: onnx.NodeProto) -> None:
        axis = attributes(node)["axis"] % len(self.shapes[node.output[0]])
        operands = [self._operand(name) for name in node.input]
        shapes = [self.shapes[name] for name in node.input]

        def joined(parts: list[Floats]) -> Floats:
            parts = [expand(x, s, [axis]) for x, s in zip(parts, shapes, strict=True)]
            wide = [max(x.shape[a] for x in parts) for a in range(parts[0].ndim)]
            return np.concatenate(
                [
                    np.broadcast_to(x, [*wide[:axis], x.shape[axis], *wide[axis + 1 :]])
                    for x in parts
                ],
                axis,
            )

        self.found[node.output[0]] = Expectation(
            joined([e.mean for e in operands]), joined([e.variance for e in operands])
        )

    def _pool(self, node: onnx.NodeProto) -> Expectation:
        """Neighbouring positions are taken as equal: exact for the mean of an average."""
        e = self.found[node.input[0]]
        e.channels(self.shapes[node.input[0]][1])
        attrs = attributes(node)
        if node.op_type == "AveragePool" and attrs.get("count_include_pad", 0):
            first, second = padding_share(
                attrs, self.shapes[node.input[0]], self.shapes[node.output[0]]
            )
            spread = e.variance * second + e.mean**2 * (second - first**2)
            return Expectation(e.mean * first, spread)
        return e

    def _reduce(self, node: onnx.NodeProto) -> Expectation:
        """Mean over axes along which nothing varies, as over pixels."""
        e = self.found[node.input[0]]
        attrs = attributes(node)
        rank = len(self.shapes[node.input[0]])
        named = self.values.get(node.input[1]) if len(node.input) > 1 else None
        axes = attrs.get("axes") if named is None else named.reshape(-1)
        if axes is None:
            raise ValueError("its axes are not known")
        axes = tuple(int(a) % rank for a in axes)
        if any(x.shape[a] > 1 for x in (e.mean, e.variance) for a in axes):
            raise ValueError("mixes channels")
        if attrs.get("keepdims", 1):
            return e
        return Expectation(e.mean.squeeze(axes), e.variance.squeeze(axes))

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
        moving = list(dict.fromkeys(n for n in node.input if n and n not in self.constants))
        roots = {self.functions.root(n) for n in moving}
        if len(roots) == 1 and (len(moving) == 1 or node.op_type != "Where"):
            (root,) = roots
            self.functions.add(out, root, node)
            try:
                known = self.functions.integrated(out, root, self.found[root])
                self.found[out] = self._operand(out) if known is None else known
            except Exception:
                self.functions.forget(out)
                raise
            return
        rank = len(self.shapes[out])
        names = [n for n in node.input if n]
        means = [align(self._operand(n).mean, rank) for n in names]
        variances = [align(self._operand(n).variance, rank) for n in names]
        if node.op_type in ("Add", "Sum", "Sub"):
            signs = [1.0, -1.0] if node.op_type == "Sub" else [1.0] * len(names)
            mean = sum((s * m for s, m in zip(signs, means, strict=True)), np.zeros(()))
            self.found[out] = Expectation(mean, sum(variances, np.zeros(())))
        elif node.op_type == "Mul":
            # E[ab] of independent a, b; exact where both are constant, or one is 0.
            mean = means[0] * means[1]
            second = (variances[0] + means[0] ** 2) * (variances[1] + means[1] ** 2)
            exact = (variances[0] == 0) & (variances[1] == 0)
            variance = np.where(exact, 0.0, np.maximum(second - mean**2, 0.0))
            for m, v in zip(means, variances, strict=True):
                nothing = (m == 0) & (v == 0)
                mean, variance = np.where(nothing, 0.0, mean), np.where(nothing, 0.0, variance)
            self.found[out] = Expectation(mean, variance)
