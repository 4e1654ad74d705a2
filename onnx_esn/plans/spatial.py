"""What a spatial pruning removes: kernel positions."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader, write_document

SPATIAL_SCHEMA = "onnx-esn/spatial-plan/1"
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SpatialEntry:
    """Kernel positions that a layer loses.

    Attributes:
        node: name of the layer.
        kernel: size of its kernel before.
        begin, end: rows (columns, …) cut off the two ends of each axis, in all filters.
        zeroed: of the kernel before, the positions that are zero, a bit for each filter and
            position (`pack_mask`); "" where only what is cut goes.
    """

    node: str
    kernel: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    zeroed: str = ""


@dataclass(frozen=True)
class SpatialPlan:
    """A spatial pruning decision.

    Attributes:
        layers: what is removed of each layer; the others keep all.
    """

    layers: tuple[SpatialEntry, ...]

    def to_json(self) -> str:
        """One JSON document, a line per entry."""
        entries = [{k: v for k, v in asdict(x).items() if v != ""} for x in self.layers]
        return write_document(SPATIAL_SCHEMA, {"layers": entries})


def read_spatial(document: Mapping[str, Any], read: Reader) -> SpatialPlan:
    """Build the plan from a parsed document; raises `PlanError`."""
    read.known(document, ("schema", "layers"))
    found = []
    for x in read.entries(document, "layers", required=True):
        kernel, begin, end = (tuple(read.integers(x, key)) for key in ("kernel", "begin", "end"))
        name = read.text(x, "node")
        same = len(kernel) == len(begin) == len(end)
        if not same or any(a + b >= k for k, a, b in zip(kernel, begin, end, strict=True)):
            raise PlanError(
                f"{read.where}: {name!r}: 'begin' and 'end' must leave something of each axis of "
                "'kernel'"
            )
        zeroed = read.text(x, "zeroed") if "zeroed" in x else ""
        found.append(SpatialEntry(name, kernel, begin, end, zeroed))
    return SpatialPlan(tuple(found))


def pack_mask(mask: Mask) -> str:
    """A mask as text: base64 of zlib of its bits."""
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode("ascii")


def unpack_mask(text: str, shape: tuple[int, ...]) -> Mask:
    """The mask that `pack_mask` was given; raises `PlanError`."""
    count = int(np.prod(shape, dtype=np.int64))
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(text, validate=True), (count + 7) // 8 + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise PlanError(f"its 'zeroed' is damaged: {error}") from error
    if len(raw) != (count + 7) // 8:
        wanted = "×".join(map(str, shape))
        raise PlanError(
            f"its 'zeroed' does not have a bit for each of {wanted} positions; was the plan made "
            "for another model?"
        )
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=count)
    return bits.astype(np.bool_).reshape(shape)
