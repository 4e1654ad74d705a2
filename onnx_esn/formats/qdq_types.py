"""What the writer of `qdq` hands from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_esn.formats.containers import Container, Integers
from onnx_esn.formats.integer_weights import Floats

# What is put behind the name of a weight.
SUFFIXES = ("codes", "scale", "shape", "dequa", "cast", "add", "mul")


@dataclass(frozen=True)
class Place:
    """A stored weight as integers, in its own layout.

    Attributes:
        tensor: its name, which the last node of a form makes.
        stem: what the names of new tensors begin with.
        type: its float type.
        n: its integers.
        half: whether they are odd, n = 2·k + 1 (or 0).
        plain: whether convolutions alone read it. Before anything else no
            DequantizeLinear may stand: of it and MatMul or Gemm onnxruntime makes one operator
            (MatMulNBits) that rounds the activations to eight bits, and past a Transpose it moves
            it in a way that it then refuses.
        view: shape in which the scale broadcasts; its own but for filters along two axes.
        scale: one number per filter, broadcast to `view` from as few axes as that takes.
    """

    tensor: str
    stem: str
    type: int
    n: Integers
    half: bool
    plain: bool
    view: tuple[int, ...]
    scale: Floats

    @property
    def axis(self) -> int | None:
        """The one axis of the stored tensor that counts filters, None where there is none."""
        along = [axis for axis, size in enumerate(self.scale.shape) if size > 1]
        return along[0] if len(along) == 1 and self.view == self.n.shape else None


@dataclass(frozen=True)
class Form:
    """One way to write a weight.

    Attributes:
        name: `int4`, `int4+Add`, `int8+Mul`.
        container: the integer type.
        nodes: in order; the last one makes the weight.
        tensors: what they read.
        made: type and shape of the weight.
        weight_bytes: bytes of the numbers themselves, scales included.
    """

    name: str
    container: Container
    nodes: tuple[onnx.NodeProto, ...]
    tensors: tuple[onnx.TensorProto, ...]
    made: tuple[int, tuple[int, ...]]
    weight_bytes: int

    @property
    def size(self) -> int:
        """Bytes that the form adds to a file."""
        tensors = sum(int(tensor.ByteSize()) for tensor in self.tensors)
        return tensors + sum(int(node.ByteSize()) for node in self.nodes)


@dataclass(frozen=True)
class Scalars:
    """Names of the constants 1 and ½ that all weights of a float type share."""

    one: str
    half: str
