"""What an analysis found: JSON, CSV."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_esn.errors import OutputError
from onnx_esn.graph.model_file import write_text

from .document import to_document
from .findings import Findings
from .tables import csv_files


@dataclass(frozen=True)
class ModelAnalysis(Findings):
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

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; infinities and NaN become null."""
        return to_document(self)

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write `analysis.json`, `weights.csv`, `theory.csv`, with images `outputs.csv`,
        `channels.csv`; the folder is made where it is missing.

        Raises:
            OutputError: the folder cannot be written.
        """
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
