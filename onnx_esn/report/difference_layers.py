"""The layers of two models side by side, the most different first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from onnx_esn.evaluation.difference import Difference
from onnx_esn.evaluation.difference.changes import LayerDifference
from onnx_esn.passes.inspecting.result import LayerInspection

from . import numbers
from .layout import cell, count, elide, grid, note

_LIMIT = 20
_LEAST_NAME = 12
_HEADINGS = ("filters", "MACs", "bits", "ESN'_d", "stored", "weights", "output")


def layer_table(
    found: Difference, width: int, everything: bool = False
) -> list[Table | Text] | None:
    """The layers that differ and a line on the others; None where no layer differs."""
    layers = [x for x in found.layers if everything or x.changed or _lossy(x)]
    if not layers:
        return None
    layers.sort(key=_urgency)
    rest = [] if everything else layers[_LIMIT:]
    layers = layers if everything else layers[:_LIMIT]
    rows = [_row(layer) for layer in layers]
    shown = [i for i in range(len(_HEADINGS)) if _says_something(i, {row[i] for row in rows})]
    used = sum(1 + max(len(_HEADINGS[i]), *(len(row[i]) for row in rows)) for i in shown)
    room = max(width - used, _LEAST_NAME)
    title = "Layers that differ" if not everything else "Layers"
    first = "the worst output first" if found.outputs is not None else "the most changed first"
    table = grid(gap=1)
    table.add_column("layer", no_wrap=True)
    for i in shown:
        table.add_column(_HEADINGS[i], justify="right", no_wrap=True)
    for layer, row in zip(layers, rows, strict=True):
        table.add_row(cell(elide(layer.name, room)), *(cell(row[i]) for i in shown))
    parts: list[Table | Text] = [Text(f"{title}, {first}", style="bold"), table]
    if rest:
        parts.append(note(f"… and {count(len(rest), 'more layer')} (-v shows all)"))
    reasons = sorted({x.reason for x in found.layers if x.reason})
    parts += [note(f"Outputs not compared where {reason}.") for reason in reasons[:3]]
    same = len(found.layers) - len(layers) - len(rest)
    if same:
        parts.append(note(f"{count(same, 'layer')} the same."))
    return parts


def _says_something(column: int, values: set[str]) -> bool:
    if _HEADINGS[column] == "stored" and len(values) == 1:
        return any("→" in value for value in values)
    return not values <= {"", numbers.UNKNOWN}


def _lossy(layer: LayerDifference) -> bool:
    return layer.output_snr_db is not None and layer.output_snr_db != math.inf


def _urgency(layer: LayerDifference) -> tuple[float, float]:
    """What comes first: layers of one model only, then the noisiest, then the cheapest by ratio."""
    if layer.before is None or layer.after is None:
        return -math.inf, 0.0
    snr = math.inf if layer.output_snr_db is None else layer.output_snr_db
    cost = numbers.ratio(layer.after.esn_prime, layer.before.esn_prime)
    return snr, 1.0 if cost is None else cost


def _row(layer: LayerDifference) -> tuple[str, ...]:
    before, after = layer.before, layer.after
    if before is None or after is None:
        side, word = (after, "only after") if before is None else (before, "only before")
        assert side is not None
        own = (str(side.filters), numbers.si(side.macs), _bits(side), numbers.si(side.esn_prime))
        return (*own, side.storage, numbers.UNKNOWN, word)
    return (
        _change(before, after, lambda x: str(x.filters)),
        _ratio(before.macs, after.macs),
        _change(before, after, _bits),
        _ratio(before.esn_prime, after.esn_prime),
        _change(before, after, lambda x: x.storage),
        numbers.decibel(layer.weight_snr_db),
        numbers.decibel(layer.output_snr_db),
    )


def _ratio(before: float | None, after: float | None) -> str:
    return "" if before == after else numbers.times(numbers.ratio(after, before))


def _change(before: LayerInspection, after: LayerInspection, show: Callable[[Any], str]) -> str:
    a, b = show(before), show(after)
    return a if a == b else f"{a}→{b}"


def _bits(layer: LayerInspection) -> str:
    """``4``, or the range of the filters, ``0–4``."""
    widths = [bits for bits, filters in layer.bits.items() if filters]
    if not widths:
        return numbers.UNKNOWN
    return numbers.bits(widths[0]) if len(set(widths)) == 1 else f"{min(widths)}–{max(widths)}"
