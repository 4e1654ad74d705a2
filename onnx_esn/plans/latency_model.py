"""What a layer's width costs in time: the model that `profile` writes and `prune` reads.

    t(n_in, n_out) = c0 + c1·n_in + c2·n_out + c3·n_in·n_out    in seconds

per layer, for n_in channels that it reads and n_out filters that it has left, both counted over
the whole layer (all groups). `rest` is the time of everything else, which no width changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader, parse_json, read_document

LATENCY_FORMAT = "onnx-esn/latency-model"
LATENCY_VERSION = 1
_UNIT = "s"
_WHAT = "latency model"
_KNOWN = ("format", "version", "unit", "rest", "layers")


@dataclass(frozen=True)
class LayerLatency:
    """The time of one layer as a function of its widths.

    Attributes:
        c0, c1, c2, c3: coefficients of 1, n_in, n_out and n_in·n_out, in seconds; not below 0.
        r2: share of the variance of the timings that the fit explains; at most 1.
    """

    c0: float
    c1: float
    c2: float
    c3: float
    r2: float = 1.0

    def seconds(self, n_in: float, n_out: float) -> float:
        """Modelled time in seconds with n_in channels read and n_out filters."""
        return self.c0 + self.c1 * n_in + self.c2 * n_out + self.c3 * n_in * n_out


@dataclass(frozen=True)
class LatencyModel:
    """Modelled times of a model's layers.

    Attributes:
        layers: by layer name.
        rest: seconds that go to everything else.
        about: further fields of the document (machine, threads, batch …), kept as they are.
    """

    layers: Mapping[str, LayerLatency]
    rest: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(
        cls, document: Mapping[str, Any] | str, where: str = "latency model"
    ) -> LatencyModel:
        """Build it from a JSON text or a parsed document.

        Args:
            document: the text or the document.
            where: the file, for messages.

        Raises:
            PlanError: a field is missing or wrong; the message names it.
        """
        if isinstance(document, str):
            document = parse_json(document, where, _WHAT)
        if not isinstance(document, Mapping) or document.get("format") != LATENCY_FORMAT:
            raise PlanError(
                f"{where}: not a latency model; 'onnx-esn profile MODEL -o latency.json' writes one"
            )
        if document.get("version") != LATENCY_VERSION:
            raise PlanError(
                f"{where}: version {document.get('version')!r} of the format; this reads "
                f"{LATENCY_VERSION}: profile the model again"
            )
        if document.get("unit", _UNIT) != _UNIT:
            raise PlanError(f"{where}: unit is {document['unit']!r}, expected {_UNIT!r} (seconds)")
        read, layers = Reader(where), document.get("layers")
        if not isinstance(layers, Mapping):
            raise PlanError(f"{where}: 'layers' must be an object, layer name: coefficients")
        found = {str(name): _layer(str(name), entry, where) for name, entry in layers.items()}
        rest = read.number({"rest": document.get("rest", 0.0)}, "rest")
        if rest < 0:
            raise PlanError(f"{where}: 'rest' is {rest:g}, a time below 0")
        return cls(found, rest, {k: v for k, v in document.items() if k not in _KNOWN})

    def to_json(self) -> str:
        """One JSON document, a line per layer."""
        head = {
            "format": LATENCY_FORMAT,
            "version": LATENCY_VERSION,
            "unit": _UNIT,
            "rest": self.rest,
            **self.about,
        }
        parts = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
        lines = ",\n".join(
            f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(vars(layer))}"
            for name, layer in self.layers.items()
        )
        parts.append(f'  "layers": {{\n{lines}\n  }}' if lines else '  "layers": {}')
        return "{\n" + ",\n".join(parts) + "\n}\n"


def load_latency(source: str | Path | LatencyModel) -> LatencyModel:
    """Read a latency model's file; an object is returned as it is; raises `PlanError`."""
    if isinstance(source, LatencyModel):
        return source
    document = read_document(source, _WHAT)
    if isinstance(document, str):  # which `from_json` would take for the text of a file
        document = None
    return LatencyModel.from_json(document, str(source))


def _layer(name: str, entry: Any, where: str) -> LayerLatency:
    if not isinstance(entry, Mapping):
        raise PlanError(f"{where}: layer {name!r} must be an object with c0, c1, c2, c3")
    missing = [c for c in ("c0", "c1", "c2", "c3") if c not in entry]
    if missing:
        raise PlanError(f"{where}: layer {name!r} has no {missing[0]!r}")
    names = ("c0", "c1", "c2", "c3", "r2")
    values = {"r2": 1.0} | {key: entry[key] for key in names if key in entry}
    read = Reader(f"{where}: layer {name!r}")
    found = {k: read.number({k: v}, k) for k, v in values.items()}
    below = next((k for k, v in found.items() if v < 0 and k != "r2"), None)
    if below is not None:  # wider would be faster: the selection cannot reckon with that
        raise PlanError(f"{where}: layer {name!r}: {below!r} is {found[below]:g}, below 0")
    return LayerLatency(**found)
