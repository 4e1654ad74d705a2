"""Expected value and variance of each channel, in closed form from the BatchNorm parameters.

Behind a BatchNormalization the channel is taken as N(β, γ²), exact constants excepted; elementwise
functions are integrated over that (x·sigmoid(x) as one function of x), data movement moves the
moments, sums add them. Where the model says nothing (a Conv without BatchNormalization, a product
of channels), the value is NaN: unknown. Arrays are compact, like labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.propagation import align, along
from onnx_esn.graph.channels.rules import NARY, UNARY
from onnx_esn.graph.evaluate import QUANTIZERS, EvaluationError, attributes, evaluate_node
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.movement import MOVES, Move, MovementError, expand, move
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.quantized import quantize_values
from onnx_esn.graph.window import padding_share, tap_coverage

Floats = NDArray[np.float64]

_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "Resize", "Upsample")
_REACH, _NODES = 8.0, 1025  # the grid on which functions are integrated, in standard deviations
_AT_ONCE, _LARGEST = 64, 1 << 22  # nodes; elements of a tensor of moments times all nodes


@dataclass(frozen=True)
class Expectation:
    """Moments of a tensor's channels; NaN where unknown, variance 0 where exactly constant.

    What is infinite is unknown as well: a model may hold infinities, a bias made of them must not.
    """

    mean: Floats
    variance: Floats

    def __post_init__(self) -> None:
        for name in ("mean", "variance"):
            values = getattr(self, name)
            if np.isinf(values).any():
                object.__setattr__(self, name, np.where(np.isinf(values), np.nan, values))

    def along(self, axis: int, size: int) -> tuple[Floats, Floats]:
        """Mean and variance (size,) along one axis, over the positions of all others."""
        others = tuple(a for a in range(self.mean.ndim) if a != axis)
        mean, variance = np.broadcast_arrays(self.mean, self.variance)
        first = mean.mean(axis=others)
        second = variance.mean(axis=others) + mean.var(axis=others)
        return np.broadcast_to(first, (size,)), np.broadcast_to(second, (size,))

    def channels(self, size: int) -> tuple[Floats, Floats]:
        """Mean and variance (size,) of the channels on axis 1.

        Raises:
            ValueError: they vary along other axes as well.
        """
        if any(n > 1 for x in (self.mean, self.variance) for n in np.delete(x.shape, 1)):
            raise ValueError("the expectation varies over positions")
        return self.along(1, size)


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
        self.opset = self.constants.opset.get("", 13)
        self.found: dict[str, Expectation] = {}
        # Tensors that are a function of one other tensor: that tensor, and the node that makes it.
        self.roots: dict[str, str] = {}
        self.makers: dict[str, onnx.NodeProto] = {}

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
        elif node.op_type in _POOLS:
            self.found[out] = self._pool(node)
        elif node.op_type == "ReduceMean":
            self.found[out] = self._reduce(node)
        elif node.op_type in UNARY or node.op_type in NARY or node.op_type in QUANTIZERS:
            self._elementwise(node)

    def _layer(self, node: onnx.NodeProto, layer: Layer) -> Expectation:
        """Zero filters give their bias; depthwise filters pass a mean on; the rest is unknown."""
        rows = layer.as_filters(self.constants.value(layer.weight))
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
        source = self.found.get(node.input[0])
        if (
            layer.depthwise
            and layer.op == "Conv"
            and source is not None
            and source.mean.ndim == rank
        ):
            shape = self.shapes[node.input[0]]
            out = self.shapes[node.output[0]]
            coverage = tap_coverage(attributes(node), layer, shape, out)
            taps = rows.astype(np.float64) @ coverage.reshape(-1)
            repeat = layer.filters // layer.groups
            m, v = (np.repeat(x, repeat) for x in source.channels(layer.channels_in))
            still = (v == 0) & ((coverage == 1).all() | (m == 0))
            mean = np.where(zero, bias, m * taps + bias)
            variance = np.where(zero | still, 0.0, np.nan)
        return Expectation(along(mean, axis, rank), along(variance, axis, rank))

    def _batch_norm(self, node: onnx.NodeProto) -> Expectation:
        names = node.input[1:5]
        gamma, beta, mean, var = (self.constants.value(n).astype(np.float64) for n in names)
        if not (var >= 0).all():  # NaN too
            raise EvaluationError(f"{describe(node)}: its variances are not all 0 or above")
        gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
        rank = len(self.shapes[node.output[0]])
        out_mean, out_var = beta.copy(), gamma**2
        before = self.found.get(node.input[0])
        if before is not None:
            m, v = before.channels(beta.size)
            constant = v == 0
            out_mean = np.where(constant, gain * (m - mean) + beta, out_mean)
            out_var = np.where(constant, 0.0, out_var)
        return Expectation(along(out_mean, 1, rank), along(out_var, 1, rank))

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
        roots = {self.roots.get(n, n) for n in moving}
        if len(roots) == 1 and (len(moving) == 1 or node.op_type != "Where"):
            (root,) = roots
            self.roots[out], self.makers[out] = root, node
            try:
                self.found[out] = self._integrated(out, root)
            except Exception:
                del self.roots[out], self.makers[out]
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

    def _integrated(self, out: str, root: str) -> Expectation:
        """Moments of `out`, a function of `root`, over N(mean, variance) of the latter."""
        e = self.found[root]
        known = ~np.isnan(e.mean) & ~np.isnan(e.variance)
        if not known.any():
            return self._operand(out)  # nothing is known of it either
        std, mean = np.sqrt(np.where(known, e.variance, 0.0)), np.where(known, e.mean, 0.0)
        grid = np.linspace(-_REACH, _REACH, _NODES)
        weight = np.exp(-0.5 * grid * grid)
        weight /= weight.sum()
        if mean.size * _NODES > _LARGEST:
            raise ValueError("too many channels to integrate at once")
        values = self._on_grid(out, root, mean, std, grid)
        at_mean = self._evaluate(out, root, mean)
        first = np.tensordot(weight, values, 1)
        values -= first  # as large as all weights together, in a small model
        second = np.tensordot(weight, np.square(values, out=values), 1)
        constant = np.broadcast_to(align(std == 0, first.ndim), first.shape)
        first, second = np.where(constant, at_mean, first), np.where(constant, 0.0, second)
        seen = align(known, first.ndim)
        return Expectation(np.where(seen, first, np.nan), np.where(seen, second, np.nan))

    def _on_grid(self, out: str, root: str, mean: Floats, std: Floats, grid: Floats) -> Floats:
        """The values of `out` at all nodes, a few at a time: each step on the way is as large."""
        values, column = np.empty(0), grid.reshape((-1,) + (1,) * mean.ndim)
        for i in range(0, grid.size, _AT_ONCE):
            part = self._evaluate(out, root, mean + std * column[i : i + _AT_ONCE])
            if part.shape[0] != len(column[i : i + _AT_ONCE]):
                raise ValueError("does not depend on its input")
            if i == 0:
                values = np.empty((grid.size, *part.shape[1:]))
            values[i : i + _AT_ONCE] = part
        return values

    def _evaluate(self, name: str, root: str, x: Floats) -> Floats:
        """The value of tensor `name` where `root` has the values `x` (grid nodes first)."""
        if name == root:
            return x
        inputs: list[NDArray[np.generic] | None] = []
        for i in self.makers[name].input:
            if not i:
                inputs.append(None)
            elif i in self.constants:
                value = self.constants.value(i)
                value = value.astype(np.float64) if value.dtype.kind == "f" else value
                inputs.append(value.reshape(()) if value.size == 1 else value)
            else:
                inputs.append(self._evaluate(i, root, x))
        if self.makers[name].op_type in QUANTIZERS:
            return quantize_values(self.makers[name], inputs)
        return np.asarray(evaluate_node(self.makers[name], inputs, self.opset)[0], np.float64)
