"""Prune or quantize? What `analyze` found, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from . import numbers
from .layout import Stacked, cell, count, elide, grid, note

_ROWS, _GROUPS = 12, 6
_PRUNES = "magenta"
# Compressions that have columns: by weights alone, and with outputs beside them.
_ALONE, _BESIDE = (4, 3, 2), (4, 2)


@dataclass(frozen=True)
class AnalysisTable(Stacked):
    """Layers, channel groups and the recommendation.

    Attributes:
        document: of an analysis.
        everything: all layers and groups, instead of those where the choice matters most.
    """

    document: Mapping[str, Any]
    everything: bool = False

    def _parts(self, width: int) -> Iterator[Table | Text]:
        found = self.document
        layers = found["layers"]
        shown = layers if self.everything else _telling(layers)
        if layers:
            yield _layers(found, shown, width)
            yield note(_legend(found, len(shown)))
        if found["whole_model"] is not None and found["whole_model"]["losses"]:
            yield Text()
            yield Text("Bits or channels? Expected divergence of the outputs at equal ESN'_d")
            yield _channels(found, width, self.everything)
            yield note(
                "bits: all channels at so many bits a MAC; channels: 8 bits, fewer of them; "
                "best: both, with the share of channels and the bits that are left."
            )
        if found["summary"]:
            yield Text()
            yield _summary(found["summary"])
            if any(x["by"] == "blocks" for x in found["summary"]):
                yield note("proven: on blocks of inputs the loser's best possible choice loses.")
        yield Text()
        for sentence in found["recommendation"]:
            yield Text(f"• {sentence}")


def analysis_table(document: Mapping[str, Any], *, everything: bool = False) -> AnalysisTable:
    """A renderable for ``console.print``."""
    return AnalysisTable(document, everything)


def _telling(layers: Sequence[Any]) -> list[Any]:
    """The layers where quantization's lead at the fewest bits is smallest, in graph order."""
    ranked = sorted(range(len(layers)), key=lambda i: _lead(layers[i]))[:_ROWS]
    return [layers[i] for i in sorted(ranked)]


def _lead(layer: Mapping[str, Any]) -> float:
    snr = (layer["outputs"][0]["snr"] if layer["outputs"] else layer["weight_snr"])[-1]
    a, b = snr["quantized"], snr["pruned"]
    return 1e9 if a is None or b is None else float(a - b)


def _layers(found: Mapping[str, Any], shown: Sequence[Any], width: int) -> Table:
    outputs = any(x["outputs"] for x in found["layers"])
    columns = [("weights", b) for b in (_BESIDE if outputs else _ALONE)]
    columns += [("outputs", b) for b in (_BESIDE if outputs else ())]
    rows = [_row(layer, columns) for layer in shown]
    titles = ["kurt.", *(f"{what}\n{b} bits" for what, b in columns)]
    if not outputs:
        titles = ["kurt.", *(f"{b} bits" for _, b in columns), "mid-rise\n4, 2 bits"]
        for layer, row in zip(shown, rows, strict=True):
            row.append(cell(_filter_wise(layer)))
    used = sum(
        1 + max(len(line) for line in (*title.split("\n"), *(row[i].plain for row in rows)))
        for i, title in enumerate(titles)
    )
    used += 1 + max(len(x["advice"]) for x in shown)
    title = "SNR in dB at equal compression: quantized/pruned"
    table = grid(f"{title}, of weights" if not outputs else title, gap=1)
    table.add_column("layer", no_wrap=True, vertical="bottom")
    for name in titles:
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("better", no_wrap=True, vertical="bottom")
    room = max(width - used, 10)
    for layer, row in zip(shown, rows, strict=True):
        advice = layer["advice"]
        style = _PRUNES if advice.startswith("prune") else ""
        table.add_row(cell(elide(layer["name"], room)), *row, cell(advice, style))
    return table


def _row(layer: Mapping[str, Any], columns: Sequence[tuple[str, int]]) -> list[Text]:
    kurtosis = layer["excess_kurtosis"]
    row = [cell(numbers.UNKNOWN if kurtosis is None else f"{kurtosis:.1f}".replace("-", "−"))]
    for what, bits in columns:
        records = layer["weight_snr"] if what == "weights" else _first(layer["outputs"])
        row.append(_pair(next((r for r in records if r["bits"] == bits), None)))
    return row


def _filter_wise(layer: Mapping[str, Any]) -> str:
    by = {x["bits"]: x["filter_wise"] for x in layer["weight_snr"]}
    return ", ".join(_db(by[b]) for b in _BESIDE)


def _db(value: float | None) -> str:
    return "∞" if value is None else f"{value:.1f}".replace("-", "−")


def _first(outputs: Sequence[Any]) -> Sequence[Any]:
    return outputs[0]["snr"] if outputs else ()


def _pair(record: Mapping[str, Any] | None) -> Text:
    if record is None:
        return cell(numbers.UNKNOWN)
    text = "/".join(_db(v) for v in (record["quantized"], record["pruned"]))
    return cell(text, _PRUNES if record["winner"] == "prune" else "")


def _legend(found: Mapping[str, Any], shown: int) -> str:
    layers = found["layers"]
    text = "At n bits, pruning keeps n/16 of the weights. kurt.: excess kurtosis."
    if found["images"] is not None:
        text += (
            f" outputs: both optimised for them on {count(found['samples'], 'sample')} of "
            f"{elide(found['images'], 30)}."
        )
    else:
        text += " mid-rise: this tool's grid, a step for each filter."
    if shown < len(layers):
        text += f" {shown} of {len(layers)} layers, where quantization leads least; -v: all."
    return text


def _summary(tallies: Sequence[Any]) -> Table:
    table = grid("Quantization wins : pruning wins (median lead in dB)")
    table.add_column("by", no_wrap=True)
    for bits in dict.fromkeys(x["bits"] for x in tallies):
        table.add_column(f"{bits} bits", justify="right", no_wrap=True)
    for by in dict.fromkeys(x["by"] for x in tallies):
        name = "proven" if by == "blocks" else by
        table.add_row(cell(name), *(_tally(x) for x in tallies if x["by"] == by))
    return table


def _tally(x: Mapping[str, Any]) -> Text:
    text = f"{x['quantize']}:{x['prune']}"
    if x["median_margin"] is not None:
        text += f" ({x['median_margin']:+.1f})".replace("-", "−")
    return cell(text, _PRUNES if x["prune"] > x["quantize"] else "")


def _channels(found: Mapping[str, Any], width: int, everything: bool) -> Table:
    groups = sorted(found["channels"], key=lambda x: -x["esn_prime"])
    groups = groups if everything else groups[:_GROUPS]
    whole = found["whole_model"]["losses"]
    rows = [("" if n else "whole model", loss) for n, loss in enumerate(whole)]
    rows += [(group["group"], _at(group, 2)) for group in groups]
    table = grid(gap=2)
    table.add_column("group", no_wrap=True)
    for title in ("bits/MAC", "bits", "channels", "best", "of it"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, loss in rows:
        mix = f"{100 * loss['best_kept']:.0f} % at {loss['best_bits']:.1f}"
        table.add_row(
            cell(elide(name, max(width - 54, 12))),
            cell(str(loss["bits"])),
            cell(_loss(loss["quantized"])),
            cell(_loss(loss["pruned"]), _PRUNES if loss["winner"] == "prune" else ""),
            cell(_loss(loss["best"])),
            cell(mix),
        )
    return table


def _at(group: Mapping[str, Any], bits: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(x for x in group["losses"] if x["bits"] == bits)
    return found


def _loss(value: float | None) -> str:
    return numbers.UNKNOWN if value is None else f"{value:.2g}"
