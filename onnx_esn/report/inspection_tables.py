"""What each layer costs, as `inspect` found it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from onnx_esn.passes.inspecting.result import Inspection, LayerInspection

from . import numbers
from .group_table import groups_line
from .layout import cell, count, elide, grid, note
from .skipped_table import skipped_table

_SHORT_OPS = {"ConvTranspose": "ConvT"}
_LEAST_NAME = 12
_DEPTHWISE = "dw"


@dataclass(frozen=True)
class InspectionTables:
    """Layers with totals, what could not be counted, and a line on the channel groups.

    Attributes:
        inspection: the figures.
    """

    inspection: Inspection

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the tables out for the width there is."""
        yield _layers(self.inspection, options.max_width)
        yield note(_legend(self.inspection))
        missing = skipped_table(self.inspection.unresolved, title="Not in the figures")
        if missing is not None:
            yield Text()
            yield missing
        if self.inspection.groups:
            yield Text()
            yield Text(f"{groups_line(self.inspection.groups)} (--groups lists them)")


def inspection_tables(inspection: Inspection) -> InspectionTables:
    """A renderable for ``console.print``."""
    return InspectionTables(inspection)


def _layers(inspection: Inspection, width: int) -> Table:
    totals = inspection.totals
    title = f"{count(totals.layers, 'layer')} with weights"
    headings = ("op", "in→out", "kernel", "groups", "output", "MACs", "params", "bits", "ESN'_d")
    rows = [_row(layer, totals.esn_prime) for layer in inspection.layers]
    sums = [numbers.si(totals.macs), numbers.si(totals.parameters)]
    sums += [numbers.bits(totals.bits_per_mac), numbers.si(totals.esn_prime)]
    total = [""] * (len(headings) - len(sums)) + sums
    # A column without content (no groups, say) costs its heading's width for nothing.
    shown = [i for i, _ in enumerate(headings) if total[i] or any(row[i] for row in rows)]
    used = sum(1 + max(map(len, (headings[i], total[i], *(r[i] for r in rows)))) for i in shown)
    room = max(width - used, _LEAST_NAME)
    table = grid(title, gap=1, footer=True)
    table.add_column("layer", cell("total"), no_wrap=True)
    for i in shown:
        side: JustifyMethod = "left" if headings[i] == "op" else "right"
        table.add_column(headings[i], cell(total[i]), justify=side, no_wrap=True)
    for layer, row in zip(inspection.layers, rows, strict=True):
        table.add_row(cell(elide(layer.name, room)), *(cell(row[i]) for i in shown))
    return table


def _row(layer: LayerInspection, esn_prime: float) -> tuple[str, ...]:
    depthwise = layer.groups > 1 and layer.groups == layer.channels_in
    groups = _DEPTHWISE if depthwise else str(layer.groups) if layer.groups > 1 else ""
    part = numbers.ratio(layer.esn_prime, esn_prime)
    return (
        _SHORT_OPS.get(layer.op, layer.op),
        f"{layer.channels_in}→{layer.channels_out}",
        "×".join(map(str, layer.kernel)),
        groups,
        numbers.UNKNOWN if layer.output_size is None else "×".join(map(str, layer.output_size)),
        numbers.si(layer.macs),
        numbers.si(layer.parameters),
        _bits(layer),
        numbers.percent(part).replace(" ", ""),
    )


def _bits(layer: LayerInspection) -> str:
    """``4``, or the range of the filters, ``0–4``."""
    widths = [bits for bits, filters in layer.bits.items() if filters]
    if not widths:
        return numbers.UNKNOWN
    low, high = min(widths), max(widths)
    return str(low) if low == high else f"{low}–{high}"


def _legend(inspection: Inspection) -> str:
    shapes = inspection.input_shapes
    sizes = {name: "×".join(map(str, shape)) or "a number" for name, shape in shapes.items()}
    fed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    text = "MACs of one sample"
    text += f" ({fed})." if fed else "."
    if any(layer.groups > 1 for layer in inspection.layers):
        text += f" {_DEPTHWISE}: depthwise."
    text += " bits: of the filters; total: mean per MAC. ESN'_d: MACs × bits."
    plain = inspection.totals.layers - inspection.totals.quantized_layers
    if plain:
        text += f" {count(plain, 'layer')} not quantized: they cost the width they are stored in."
    return text
