"""What a model costs: MACs, parameters, ESN'_d, bytes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.formats import storage
from onnx_esn.graph.external_data import data_files
from onnx_esn.graph.model_file import check_file
from onnx_esn.passes.inspecting.inspection import inspect

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Costs:
    """MACs of one sample, parameters, ESN'_d in MAC·bit, and bytes of the file."""

    macs: int
    parameters: int
    esn_prime: float
    file_bytes: int


def measure_costs(
    model: onnx.ModelProto | str | os.PathLike[str],
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Costs:
    """Inspect a model; ``shapes`` of its inputs (with the batch) where it leaves them open."""
    by_name = None if shapes is None else {name: tuple(shape) for name, shape in shapes.items()}
    inspection = inspect(model, input_shape=by_name, groups=False)
    if inspection.unresolved:
        first = inspection.unresolved[0]
        log.warning(
            "%d nodes are not in the MACs, the first is '%s': %s",
            len(inspection.unresolved),
            first.node,
            first.reason,
        )
    totals = inspection.totals
    return Costs(totals.macs, totals.parameters, totals.esn_prime, file_bytes(model))


def file_bytes(model: onnx.ModelProto | str | os.PathLike[str]) -> int:
    """Bytes on disk, with the files of external data; of a model in memory, serialized.

    Raises:
        ModelError: the file or its external data cannot be found or read.
    """
    if isinstance(model, onnx.ModelProto):
        return storage.file_bytes(model)
    path = Path(model)
    check_file(path)
    try:
        return sum(file.stat().st_size for file in {path, *data_files(path)})
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
