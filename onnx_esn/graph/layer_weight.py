"""What is known of a layer's weight, in about the memory that its file takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.numerics.esn import Integers, bits, filter_bits
from onnx_esn.numerics.row_blocks import Reals, row_blocks
from onnx_esn.numerics.shifted_grid import ShiftedGrid

Floats = NDArray[np.float64]

_SMALL = 1 << 20  # elements


class Block(NamedTuple):
    """Some filters of a weight in float64.

    Attributes:
        rows: which.
        W: their values (m, K).
        codes: W_int (m, K), or None off the grid.
    """

    rows: slice
    W: Floats
    codes: Floats | None


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The weight of a layer.

    A large one takes no more than it does in the file, and its codes half of that; in float64 it is
    made a block of filters at a time (`blocks`), or whole, each time anew, where `W` is asked for.

    Attributes:
        values: its values as filters (M, K), in the type that the layer reads.
        tensor: name of the stored tensor behind it (of a computed weight, the computed one).
        type: element type of that tensor (`TensorProto.DataType`).
        read_type: element type as the layer reads it; another one behind a Cast.
        step: canonical step Δ (M,) where the values lie on a grid, else None.
        halves: 2·W_int (M, K) on that grid, else None.
        locked: why other values cannot be written to it, or "".
        quantizer: whose grid it is, a name in `QUANTIZERS`, or "" off the grid.
        integers: what DequantizeLinear multiplies with the scales, q − zero point (M, K), where it
            makes the weight and the values lie on no grid (−128 and what a zero point moves beyond
            ±127 are on none, nor are filters with several scales); else None.
        shifted: the grid with an offset per filter that the values lie on where they lie on none
            without; else None.
    """

    values: Reals
    tensor: str
    type: int
    read_type: int
    step: Floats | None
    halves: NDArray[np.int16] | None
    locked: str
    quantizer: str = ""
    integers: Floats | None = None
    shifted: ShiftedGrid | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K): filters, and weights of each."""
        M, K = self.values.shape
        return M, K

    @property
    def W(self) -> Floats:  # noqa: N802
        """Its values (M, K) in float64; not to be written to."""
        kept = self._kept
        return self.values.astype(np.float64) if kept is None else kept[0]

    @property
    def codes(self) -> Floats | None:
        """W_int (M, K) on the grid, else None; not to be written to."""
        if self.halves is None:
            return None
        kept = self._kept
        return self.halves / 2.0 if kept is None else kept[1]

    @cached_property
    def _kept(self) -> tuple[Floats, Floats | None] | None:
        """Both in float64 for as long as the weight is held; None of a large one."""
        if self.values.size > _SMALL:
            return None
        return self.values.astype(np.float64), None if self.halves is None else self.halves / 2.0

    def blocks(self) -> Iterator[Block]:
        """The filters in order, a few at a time."""
        for rows in row_blocks(*self.shape):
            codes = None if self.halves is None else self.halves[rows] / 2.0
            yield Block(rows, self.values[rows].astype(np.float64), codes)

    @cached_property
    def peak(self) -> Floats:
        """Largest magnitude (M,) of each filter."""
        peaks = [np.abs(b.W).max(axis=1, initial=0.0) for b in self.blocks()]
        return np.concatenate([np.zeros(0), *peaks])

    @property
    def counted(self) -> Floats | None:
        """What bits are counted of: the codes, or else the integers; None of plain floats."""
        if self.shifted is not None:
            return self.shifted.codes
        return self.integers if self.codes is None else self.codes

    def counted_blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Rows and what bits are counted of, a few filters at a time; nothing of plain floats."""
        if self.halves is None and self.counted is None:
            return
        whole = self.counted if self.halves is None else None
        for rows in row_blocks(*self.shape):
            if whole is not None:
                yield rows, whole[rows]
            elif self.halves is not None:
                yield rows, self.halves[rows] / 2.0

    def code_bits(self, x: npt.ArrayLike) -> Integers:
        """Bits of each of the codes; of a stored integer at most those it is stored in."""
        return bits(x) if self.type in EPSILON else np.minimum(bits(x), self.width)

    @property
    def type_name(self) -> str:
        """Name of the stored type, such as `float32` or `int8`."""
        name: str = TensorProto.DataType.Name(self.type).lower()
        return {"float": "float32", "double": "float64"}.get(name, name)

    @property
    def width(self) -> int:
        """Bits of one stored value."""
        return type_width(self.type)

    @cached_property
    def filter_bits(self) -> Integers:
        """Bits (M,) of each filter: those of its largest code, or the stored width off the grid."""
        if self.halves is not None:
            low, high = self.halves.min(axis=1, initial=0), self.halves.max(axis=1, initial=0)
            return self.code_bits(np.maximum(high, -low) / 2.0)
        if self.counted is not None:
            return filter_bits(self.counted, self.code_bits)
        return np.full(self.shape[0], self.width, dtype=np.int64)


def type_width(data_type: int) -> int:
    """Return the bits of one value of a `TensorProto.DataType` (8 for a bool, 32 for float)."""
    name = TensorProto.DataType.Name(data_type)
    fixed = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}.get(name)
    digits = re.search(r"\d+", name)
    return fixed or (int(digits[0]) if digits else 0)
