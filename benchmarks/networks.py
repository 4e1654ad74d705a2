"""Networks in the shapes of well-known ones, with random weights, at sizes that a curve wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Network:
    """Nodes and weights as they are added; weights as He et al. draw them.

    Args:
        seed: of the weights.
        norm: BatchNormalization behind each convolution, instead of a bias.
    """

    def __init__(self, seed: int = 0, *, norm: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.norm = norm
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def store(self, value: np.ndarray) -> str:
        """The name of a new initializer of float32."""
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """The name of the output of a new node."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def conv(self, x: str, c: int, m: int, k: int, stride: int = 1, gain: float = 2.0) -> str:
        """A convolution of c to m channels, with its bias or BatchNormalization."""
        scale = np.float32(np.sqrt(gain / (c * k * k)))
        W = self.store(self.rng.standard_normal((m, c, k, k), np.float32) * scale)
        given = {"kernel_shape": [k, k], "strides": [stride] * 2, "pads": [k // 2] * 4}
        if not self.norm:
            return self.op("Conv", x, W, self.store(self.rng.normal(size=m) * 0.1), **given)
        y = self.op("Conv", x, W, **given)
        low = {"gamma": 0.5, "beta": -0.25, "mean": -0.25, "var": 0.5}
        parameters = [self.store(self.rng.uniform(v, v + 0.5, m)) for v in low.values()]
        return self.op("BatchNormalization", y, *parameters)

    def model(self, name: str, output: str, side: int, classes: int) -> onnx.ModelProto:
        """The model of all that was added; its input is `x`, N×3×side×side."""
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            name,
            [info("x", TensorProto.FLOAT, ["N", 3, side, side])],
            [info(output, TensorProto.FLOAT, ["N", classes])],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bottlenecks(
    depth: int, *, width: int = 64, side: int = 224, classes: int = 1000, **given: bool | int
) -> onnx.ModelProto:
    """A ResNet of 50, 101 or 152 layers; `given` goes to `Network`."""
    net = Network(**given)  # type: ignore[arg-type]
    y, c = net.op("Relu", net.conv("x", 3, width, 7, 2)), width
    y = net.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, blocks in enumerate(BLOCKS[depth]):
        m = width << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            short = y if block else net.conv(y, c, 4 * m, 1, stride, 1.0)
            z = net.op("Relu", net.conv(y, c, m, 1))
            z = net.op("Relu", net.conv(z, m, m, 3, stride))
            y = net.op("Relu", net.op("Add", net.conv(z, m, 4 * m, 1, 1, 0.5), short))
            c = 4 * m
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    W = net.store(net.rng.standard_normal((classes, c), np.float32) * np.float32(0.02))
    y = net.op("Gemm", y, W, net.store(np.zeros(classes)), transB=1)
    return net.model(f"resnet{depth}", y, side, classes)


def chain(
    widths: Sequence[int], *, kernel: int = 3, side: int = 8, seed: int = 0
) -> onnx.ModelProto:
    """Convolutions of these widths one behind the other, each with a Relu, and a small Gemm."""
    net = Network(seed)
    y, c = "x", 3
    for m in widths:
        y, c = net.op("Relu", net.conv(y, c, m, kernel)), m
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    W = net.store(net.rng.standard_normal((10, c), np.float32) / np.float32(np.sqrt(c)))
    return net.model("chain", net.op("Gemm", y, W, transB=1), side, 10)
