"""Bits per layer, as `trace` finds them and `quantize --policy` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader, read_document, write_document

POLICY_SCHEMA = "onnx-esn/bit-policy/1"
_TRACE_SCHEMA = "onnx-esn/trace/1"  # of what holds a policy
_MOST_BITS = 8


@dataclass(frozen=True)
class LayerBits:
    """Bits for the filters of one layer.

    Attributes:
        layer: name of its node, or of its weight.
        bits: 1 … 8.
    """

    layer: str
    bits: int


@dataclass(frozen=True)
class BitPolicy:
    """How many bits each layer gets; layers that are not named stay as they are."""

    layers: tuple[LayerBits, ...]

    def bits_of(self, names: Sequence[str]) -> int | None:
        """The bits of what goes by one of these names, or None."""
        known = {entry.layer: entry.bits for entry in self.layers}
        return next((known[name] for name in names if name in known), None)

    def to_json(self) -> str:
        """One JSON document, a line per layer."""
        entries = [{"layer": x.layer, "bits": x.bits} for x in self.layers]
        return write_document(POLICY_SCHEMA, {"layers": entries})


def load_policy(source: str | Path | BitPolicy) -> BitPolicy:
    """Read a policy, from a file of its own or from what `trace` wrote.

    Raises:
        PlanError: the file is missing or malformed; names the field.
    """
    if isinstance(source, BitPolicy):
        return source
    return parse_policy(read_document(source, "policy"), str(source))


def parse_policy(document: Any, where: str = "policy") -> BitPolicy:
    """Build a policy from a parsed JSON document; raises `PlanError`."""
    if not isinstance(document, Mapping):
        raise PlanError(f"{where}: a policy is a JSON object with 'layers'")
    schema = document.get("schema", POLICY_SCHEMA)
    if schema not in (POLICY_SCHEMA, _TRACE_SCHEMA):
        raise PlanError(f"{where}: schema is {schema!r}, expected {POLICY_SCHEMA!r}")
    found = document.get("policy", document)
    if found is None or not isinstance(found, Mapping):
        raise PlanError(f"{where}: it holds no policy; give `trace` more than one epoch")
    read = Reader(where)
    layers = []
    for entry in read.entries(found, "layers", required=True):
        bits = read.integer(entry, "bits")
        if not 1 <= bits <= _MOST_BITS:
            raise PlanError(
                f"{where}: 'bits' must be 1 to {_MOST_BITS} in {json.dumps(dict(entry))}"
            )
        layers.append(LayerBits(read.text(entry, "layer"), bits))
    if not layers:
        raise PlanError(f"{where}: the policy names no layer; in its epoch none moved")
    names = [x.layer for x in layers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanError(f"{where}: the policy names layer {twice!r} twice")
    return BitPolicy(tuple(layers))
