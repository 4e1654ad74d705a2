"""What the writer of `qdq` hands from one step to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnx_esn.formats.containers import Container, Integers
from onnx_esn.formats.integer_weights import Floats

# What is put behind the name of a weight.
SUFFIXES = ("codes", "scale", "offset", "shape", "dequa", "cast", "add", "mul")


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
        offset: what is added to k before the scale, in the shape of that; None: ½.
    """

    tensor: str
    stem: str
    type: int
    n: Integers
    half: bool
    plain: bool
    view: tuple[int, ...]
    scale: Floats
    offset: Floats | None = None

    @cached_property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest integer, or 0."""
        return int(self.n.min(initial=0)), int(self.n.max(initial=0))

    @property
    def axis(self) -> int | None:
        """The one axis of the stored tensor that counts filters, None where there is none."""
        along = [axis for axis, size in enumerate(self.scale.shape) if size > 1]
        return along[0] if len(along) == 1 and self.view == self.n.shape else None


@dataclass(frozen=True)
class Codes:
    """The integers of a weight as they will be stored; the tensor is made when it is asked for.

    Most forms are only weighed, and of a large model their tensors would take more than it does.

    Attributes:
        name: of the tensor.
        container: the integer type.
        n: integers of a `Place` …
        shifted: … k of n = 2·k + 1 is stored (0 for 0), or they are themselves.
        shape: of the tensor.
    """

    name: str
    container: Container
    n: Integers
    shifted: bool
    shape: tuple[int, ...]

    def tensor(self) -> onnx.TensorProto:
        """The tensor."""
        values = np.where(self.n == 0, 0, (self.n - 1) // 2) if self.shifted else self.n
        return self.container.tensor(values.reshape(self.shape), self.name)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the numbers."""
        return self.container.size(self.n.size)

    @property
    def size(self) -> int:
        """Bytes that the tensor takes in a file."""
        raw = self.raw_bytes
        bare = onnx.TensorProto(name=self.name, data_type=self.container.type, dims=self.shape)
        # A tag and the length, seven bits to a byte, come before the numbers.
        return int(bare.ByteSize()) + 1 + max(1, -(-raw.bit_length() // 7)) + raw


@dataclass(frozen=True)
class Form:
    """One way to write a weight.

    Attributes:
        name: `int4`, `int4+Add`, `int8+Mul`.
        container: the integer type.
        nodes: in order; the last one makes the weight.
        codes: the integers that they read …
        others: … and the other tensors.
        made: type and shape of the weight.
        weight_bytes: bytes of the numbers themselves, scales included.
    """

    name: str
    container: Container
    nodes: tuple[onnx.NodeProto, ...]
    codes: Codes
    others: tuple[onnx.TensorProto, ...]
    made: tuple[int, tuple[int, ...]]
    weight_bytes: int

    def tensors(self) -> Iterator[onnx.TensorProto]:
        """What the nodes read, made one by one."""
        yield self.codes.tensor()
        yield from self.others

    @property
    def size(self) -> int:
        """Bytes that the form adds to a file."""
        tensors = self.codes.size + sum(int(tensor.ByteSize()) for tensor in self.others)
        return tensors + sum(int(node.ByteSize()) for node in self.nodes)


@dataclass(frozen=True)
class Scalars:
    """Names of the constants 1 and ½ that all weights of a float type share."""

    one: str
    half: str
