"""What a page is about, found in the document of either command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_esn.errors import OptionError

from .report import SCHEMA

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A compression, alone or as the chosen point of a sweep.

    Attributes:
        report: the ``report`` of the document (`Report.to_document`).
        stages: the steps that were taken.
        evaluation: the closing figures; None where there were too few images.
        sweep: the document of the sweep; None for a compression alone.
    """

    report: Document
    stages: Sequence[Document]
    evaluation: Document | None
    sweep: Document | None

    @property
    def before(self) -> Document:
        """Figures of the input model, as an evaluation has them."""
        return self._model(0, "before")

    @property
    def after(self) -> Document:
        """Figures of the compressed model."""
        return self._model(-1, "after")

    @property
    def layers(self) -> Sequence[Document]:
        """The layers, in graph order."""
        layers: Sequence[Document] = self.report["layers"]
        return layers

    @property
    def name(self) -> str:
        """Name of the input model."""
        if self.report["model"] is not None:
            return str(self.report["model"]["name"])
        return "model" if self.sweep is None else str(self.sweep["model"])

    def _model(self, index: int, side: str) -> Document:
        whole = self.report[side]
        if self.evaluation is None:
            unknown = dict.fromkeys(("latency", "agreement", "accuracy"))
            found = {**whole, **unknown, "mean_bits": whole["bits_per_mac"]}
        else:
            found = dict(self.evaluation["models"][index])
        file = self.report["model" if side == "before" else "output"]
        if file is not None:
            found["file_bytes"] = file["bytes"]
        return found


def subject_of(document: Document) -> Subject:
    """Find the parts.

    Raises:
        OptionError: the document has no report in it.
    """
    report = document.get("report")
    if not isinstance(report, Mapping) or report.get("schema") != SCHEMA:
        raise OptionError(f"the document has no report ({SCHEMA}) in it; run with --report")
    choice = report["choice"]
    if choice is None:
        return Subject(report, document["stages"], document["evaluation"], None)
    result = choice["result"]
    return Subject(report, result["stages"], result["evaluation"], document)
