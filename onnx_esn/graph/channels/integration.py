"""Moments of functions of one tensor, integrated over what is expected of that."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channels.moments import Expectation, Floats
from onnx_esn.graph.channels.propagation import align
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import QUANTIZERS, evaluate_node
from onnx_esn.graph.quantized import quantize_values

_REACH, _NODES = 8.0, 1025  # the grid on which functions are integrated, in standard deviations
_AT_ONCE, _LARGEST = 64, 1 << 22  # nodes; elements of a tensor of moments times all nodes


class Functions:
    """Tensors that are a function of one other tensor: that tensor, and the node that makes it."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.opset = constants.opset.get("", 13)
        self.roots: dict[str, str] = {}
        self.makers: dict[str, onnx.NodeProto] = {}

    def root(self, name: str) -> str:
        """What a tensor is a function of; itself where it is none."""
        return self.roots.get(name, name)

    def add(self, name: str, root: str, maker: onnx.NodeProto) -> None:
        """Learn of one more."""
        self.roots[name], self.makers[name] = root, maker

    def forget(self, name: str) -> None:
        """Take it for a tensor of its own."""
        del self.roots[name], self.makers[name]

    def integrated(self, out: str, root: str, e: Expectation) -> Expectation | None:
        """Moments of `out`, a function of `root`, over N(mean, variance) of the latter.

        Returns:
            The moments; None where nothing is known of `root`.

        Raises:
            EvaluationError, ValueError: it cannot be worked out.
        """
        known = ~np.isnan(e.mean) & ~np.isnan(e.variance)
        if not known.any():
            return None
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
