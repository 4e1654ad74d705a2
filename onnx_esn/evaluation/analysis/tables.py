"""The CSV files of an analysis, made of its document."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_LIMITS = ("quantized_limit", "pruned_limit", "winner")


def csv_files(document: Mapping[str, Any]) -> dict[str, str]:
    """Contents by file name; without images only weights and theory."""
    layers = document["layers"]
    files = {
        "weights.csv": [
            {**_plain(layer), **snr} for layer in layers for snr in layer["weight_snr"]
        ],
        "theory.csv": [
            {"density": x["density"], "excess_kurtosis": x["excess_kurtosis"], **snr}
            for x in document["theory"]
            for snr in x["snr"]
        ],
    }
    if document["images"] is not None:
        files["outputs.csv"] = [
            row for layer in layers for found in layer["outputs"] for row in _outputs(found)
        ]
        groups = [document["whole_model"], *document["channels"]]
        files["channels.csv"] = [
            {**_plain(group), **loss}
            for group in groups
            if group is not None
            for loss in group["losses"]
        ]
    return {name: _csv(rows) for name, rows in files.items() if rows}


def _outputs(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whole filters, and blocks with a prefix."""
    blocks = {b["bits"]: b for b in found["blocks"]}
    names = ["blocks", "inputs", "kept", "quantized", "pruned", *_LIMITS, "solved"]
    rows = []
    for snr in found["snr"]:
        block = blocks.get(snr["bits"], {})
        rows.append(
            {**_plain(found), **snr, **{f"block_{name}": block.get(name) for name in names}}
        )
    return rows


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is no list of records; names joined."""
    found = {}
    for key, value in row.items():
        if isinstance(value, list):
            if key != "layers":
                continue
            value = " ".join(value)
        found[key] = value
    return found


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return stream.getvalue()
