"""What a report says beyond the figures that its command prints anyway, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.evaluation.difference import Difference
from onnx_esn.evaluation.difference.changes import LayerDifference
from onnx_esn.passes.inspecting.result import GroupInspection, json_ready

from .model_files import ModelFile

SCHEMA = "onnx-esn/report/1"
REMOVED, FLOAT = "x", "f"


@dataclass(frozen=True)
class Choice:
    """The point of a sweep that its report looks into.

    Attributes:
        index: among the points of the sweep.
        rule: why this one, in words.
        result: the result of `compress` at this point (``onnx-esn/result/1``).
    """

    index: int
    rule: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """A compression in all its parts.

    Attributes:
        command: words of the command that was run, quoted for a shell; () where there was none.
        version: of this package.
        model: the input model; None where it was in memory.
        output: the compressed model; None where it was not written.
        difference: both side by side, layer by layer; the outputs of layers on `samples`.
        groups: channel groups of the input model.
        samples: samples that the outputs of layers were compared on; None where they were not.
        notes: what is missing from the report, and why.
        choice: of a sweep, which of its points this is about.
        point_commands: of a sweep, for each point the words of the command that makes it.
    """

    command: tuple[str, ...]
    version: str
    model: ModelFile | None
    output: ModelFile | None
    difference: Difference
    groups: tuple[GroupInspection, ...]
    samples: int | None = None
    notes: tuple[str, ...] = ()
    choice: Choice | None = None
    point_commands: tuple[tuple[str, ...], ...] = ()

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; the same run gives the same document, measured latencies apart."""
        found = self.difference.to_document()
        layers = [
            {**entry, "filters": filter_codes(layer)}
            for entry, layer in zip(found["layers"], self.difference.layers, strict=True)
        ]
        document = {
            "schema": SCHEMA,
            "command": list(self.command),
            "version": self.version,
            "model": None if self.model is None else asdict(self.model),
            "output": None if self.output is None else asdict(self.output),
            "before": found["before"],
            "after": found["after"],
            "layers": layers,
            "groups": [asdict(group) for group in self.groups],
            "samples": self.samples,
            "notes": [*found["notes"], *self.notes],
            "choice": None if self.choice is None else asdict(self.choice),
            "point_commands": [list(words) for words in self.point_commands],
        }
        plain: dict[str, Any] = json_ready(document)
        return plain


def filter_codes(layer: LayerDifference) -> str | None:
    """What became of each filter that the layer had, a character each; None where not known.

    A digit is its bits, ``f`` a filter that stayed in floats, ``x`` one that was removed.
    """
    if layer.before is None or layer.after is None or layer.removed is None:
        return None
    gone = set(layer.removed)
    if layer.before.filters - len(gone) != len(layer.after.filter_bits):
        return None
    left = iter(layer.after.filter_bits)
    codes = []
    for index in range(layer.before.filters):
        if index in gone:
            codes.append(REMOVED)
            continue
        bits = next(left)
        codes.append(str(bits) if layer.after.quantized and bits <= 8 else FLOAT)
    return "".join(codes)
