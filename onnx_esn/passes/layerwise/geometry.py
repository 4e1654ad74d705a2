"""How a layer reads its input and where its output's channels are, for sampling both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration.patches import Window, patches_at, rows_at
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.window import pad_before

Array = npt.NDArray[np.generic]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """The reading of one layer.

    Attributes:
        layer: the layer.
        data: name of the tensor it reads.
        node: its node.
    """

    layer: Layer
    data: str
    node: onnx.NodeProto

    @property
    def features(self) -> int:
        """Weights d of one filter."""
        return self.layer.parameters // self.layer.filters

    @property
    def out_axis(self) -> int:
        """Axis of the output's channels once the batch axis is gone; negative for a product."""
        if self.layer.kernel:
            return 0
        return -1 if self.layer.slot == 1 else -2

    def places(self, output: Array, size: int) -> tuple[int, ...] | None:
        """Shape of the output's positions for one of `size` samples; None where it has none."""
        if not _follows(output, size) or (self.layer.kernel and len(output) != size):
            return None
        shape = list(_samples(output, size).shape[1:])
        # Samples that are columns of a product from the left do not follow either.
        if len(shape) < -self.out_axis or shape[self.out_axis] != self.layer.filters:
            return None
        del shape[self.out_axis]
        return tuple(shape)

    def reads(self, value: Array, size: int, places: tuple[int, ...]) -> bool:
        """Whether an input of `size` samples has the positions of the outputs, for a product."""
        if self.layer.kernel:
            return True
        shape = list(_samples(value, size).shape[1:])
        del shape[self.out_axis]
        return tuple(shape) == places

    def outputs_at(self, output: Array, size: int, sample: int, at: Indices) -> Array:
        """Outputs (n, M) of one sample at flat positions."""
        return rows_at(_samples(output, size)[sample], self.out_axis, at)

    def inputs_at(
        self, value: Array, size: int, places: tuple[int, ...], at: Sequence[Indices]
    ) -> Array:
        """Inputs (G, n, d) that the outputs at flat positions of each sample read.

        Args:
            value: the input tensor, of `size` samples.
            size: samples in it.
            places: the output's positions.
            at: positions for each of the first samples, one after another.
        """
        samples = _samples(value, size)
        if not self.layer.kernel:
            rows = [rows_at(x, self.out_axis, a) for x, a in zip(samples, at, strict=False)]
            return np.concatenate(rows)[None]
        window = self._window(value.shape[2:], places)
        return patches_at(samples, window, places, at)

    def _window(self, source: tuple[int, ...], out: tuple[int, ...]) -> Window:
        attrs, kernel = attributes(self.node), self.layer.kernel
        rank = len(kernel)
        strides = tuple(attrs.get("strides") or [1] * rank)
        dilations = tuple(attrs.get("dilations") or [1] * rank)
        extra = attrs.get("output_padding") or [0] * rank
        transposed = self.layer.op == "ConvTranspose"
        pads = []
        for k in range(rank):
            span, i, o = (kernel[k] - 1) * dilations[k] + 1, source[k], out[k]
            if transposed:
                total = (i - 1) * strides[k] + extra[k] + span - o
            else:
                total = (o - 1) * strides[k] + span - i
            pads.append(pad_before(attrs, k, rank, total, turned=transposed))
        return Window(kernel, strides, dilations, tuple(pads), transposed, self.layer.groups)


def find_geometry(model: onnx.ModelProto, layer: Layer) -> Geometry | str:
    """How the layer reads its input, or why that cannot be sampled."""
    node = model.graph.node[layer.index]
    if layer.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return f"{layer.op} is not followed layer by layer"
    if len(layer.weight_shape) != 2 + len(layer.kernel):
        return "its weight is a stack of matrices"
    attrs = attributes(node)
    if layer.op == "Gemm":
        if layer.slot != 1 or attrs.get("transA", 0):
            return "it multiplies from the left"
        if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) == 0.0:
            return "its alpha or beta leaves no place for a bias"
    return Geometry(layer, node.input[0] if layer.kernel else node.input[1 - layer.slot], node)


def _follows(value: Array, size: int) -> bool:
    return value.ndim > 1 and len(value) > 0 and len(value) % size == 0


def _samples(value: Array, size: int) -> Array:
    """The first axis split into samples and what a reshape merged into it."""
    if len(value) == size:
        return value
    return value.reshape(size, len(value) // size, *value.shape[1:])


def area(places: tuple[int, ...]) -> int:
    """Number of positions."""
    return math.prod(places)
