"""The signed integer types of ONNX that weights are stored in: ranges, operator sets, bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

Integers = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Container:
    """A signed integer type.

    Attributes:
        name: such as `int4`.
        bits: width of one number.
        opset: first operator set whose DequantizeLinear takes it.
        ir_version: first IR version that has it.
    """

    name: str
    bits: int
    opset: int
    ir_version: int

    @property
    def type(self) -> int:
        """The `TensorProto.DataType`."""
        value: int = TensorProto.DataType.Value(self.name.upper())
        return value

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest number."""
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def size(self, count: int) -> int:
        """Bytes of `count` numbers, packed."""
        return -(-count * self.bits // 8)

    def tensor(self, values: npt.NDArray[np.generic], name: str) -> onnx.TensorProto:
        """Store integers within `range` in this type, packed as ONNX wants it."""
        return TensorProto(
            name=name, data_type=self.type, dims=values.shape, raw_data=self._packed(values)
        )

    def _packed(self, values: npt.NDArray[np.generic]) -> bytes:
        flat = np.ascontiguousarray(values).reshape(-1)
        if self.bits >= 8:
            return flat.astype(f"<i{self.bits // 8}").tobytes()
        # Several to a byte, the first in its lowest bits; the last byte is filled up with zeros.
        each = 8 // self.bits
        full = np.zeros(self.size(flat.size) * each, dtype=np.uint8)
        full[: flat.size] = flat.astype(np.int8).view(np.uint8) & ((1 << self.bits) - 1)
        packed = np.zeros(full.size // each, dtype=np.uint8)
        for place in range(each):
            packed |= full[place::each] << (place * self.bits)
        return packed.tobytes()


_KNOWN = {value.name for value in TensorProto.DESCRIPTOR.enum_types_by_name["DataType"].values}
# What the installed onnx does not know is not offered.
CONTAINERS = tuple(
    container
    for container in (
        Container("int2", 2, 25, 13),
        Container("int4", 4, 21, 10),
        Container("int8", 8, 10, 3),
        Container("int16", 16, 21, 3),
    )
    if container.name.upper() in _KNOWN
)


def narrowest(low: int, high: int, opset: int) -> Container | None:
    """The narrowest type at an operator set that holds low … high; None where there is none."""
    for container in CONTAINERS:
        least, most = container.range
        if container.opset <= opset and least <= low and high <= most:
            return container
    return None
