"""What an analysis found: data, JSON, CSV."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_esn.errors import OutputError
from onnx_esn.graph.model_file import write_text
from onnx_esn.numerics.pruning_or_quantizing.distributions import (
    Distribution,
    Gaussian,
    StudentT,
)
from onnx_esn.numerics.pruning_or_quantizing.theory import pruning_snr, quantization_snr
from onnx_esn.passes.analysis.channels import ChannelAnalysis
from onnx_esn.passes.analysis.outputs import OutputAnalysis
from onnx_esn.passes.analysis.tensors import TensorAnalysis
from onnx_esn.passes.base import Skipped

# What the weights of a network may be likened to.
DENSITIES: tuple[Distribution, ...] = (Gaussian(), StudentT(8), StudentT(4), StudentT(3))


@dataclass(frozen=True)
class ModelAnalysis:
    """Pruning against quantization in one model.

    Attributes:
        name: of the model.
        tensors: its weights, in graph order.
        outputs: what layers' outputs lose, by layer name; empty without images.
        channels: its channel groups at equal ESN'_d; empty without images.
        model_channels: all widths and bits together; None without images.
        skipped: what is not in the figures, and why.
        images: name of the set, or None.
        samples: how many.
        seed: of everything that was drawn.
    """

    name: str
    tensors: tuple[TensorAnalysis, ...]
    outputs: Mapping[str, OutputAnalysis]
    channels: tuple[ChannelAnalysis, ...]
    model_channels: ChannelAnalysis | None
    skipped: tuple[Skipped, ...]
    images: str | None = None
    samples: int = 0
    seed: int = 0

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; infinities and NaN become null."""
        from .document import to_document

        return to_document(self)

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write `analysis.json`, `weights.csv`, `theory.csv`, with images `outputs.csv`,
        `channels.csv`; the folder is made where it is missing.

        Raises:
            OutputError: the folder cannot be written.
        """
        from .tables import csv_files

        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{folder}: cannot be made ({reason}); name a folder") from error
        document = self.to_document()
        text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        files = {"analysis.json": text, **csv_files(document)}
        return tuple(write_text(content, folder / name) for name, content in files.items())


@functools.cache
def theory() -> tuple[tuple[Distribution, tuple[tuple[int, float, float], ...]], ...]:
    """(density, (bits, SNR quantized, SNR pruned)) of each of `DENSITIES`."""
    return tuple(
        (x, tuple((b, quantization_snr(x, b), pruning_snr(x, b)) for b in range(8, 1, -1)))
        for x in DENSITIES
    )
