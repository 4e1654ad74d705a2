"""What differs between two models, as `compare` found it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from onnx_esn.evaluation.difference import Difference
from onnx_esn.evaluation.difference.changes import OutputsDifference

from . import numbers
from .difference_layers import layer_table
from .difference_lines import node_lines, setting_lines, tensor_lines
from .layout import Stacked, cell, count, elide, grid, note

_NAME_WIDTH = 20


@dataclass(frozen=True)
class DifferenceTable(Stacked):
    """Cost, outputs, layers, nodes, tensors and settings.

    Attributes:
        difference: what differs.
        everything: every layer, node and tensor by name, instead of the worst and sums.
    """

    difference: Difference
    everything: bool = False

    def _parts(self, width: int) -> Iterator[Table | Text]:
        found = self.difference
        yield _models(found)
        if found.outputs is not None:
            yield Text()
            yield from _outputs(found.outputs)
        table = layer_table(found, width, self.everything)
        if table is not None:
            yield Text()
            yield from table
        rows = {
            "Nodes": [*node_lines(found.nodes, self.everything)],
            "Stored tensors": [*tensor_lines(found.tensors, self.everything)],
            "Settings": [*setting_lines(found.settings, self.everything)],
            "Notes": [("", text) for text in found.notes],
        }
        for title, lines in rows.items():
            if lines:
                yield Text()
                yield _list(title, lines)


def difference_table(difference: Difference, *, everything: bool = False) -> DifferenceTable | str:
    """A renderable for ``console.print``; a line of text where the files are the same."""
    if difference.same:
        return _same(difference)
    return DifferenceTable(difference, everything)


def _same(found: Difference) -> str:
    text = f"{found.before.name} and {found.after.name} are the same: no node, tensor or setting"
    text += " differs"
    if found.outputs is None:
        return text
    told = f"{count(found.outputs.samples, 'sample')} of {found.outputs.images}"
    if found.outputs.divergence == 0:
        return f"{text}, nor do their outputs on {told}"
    return f"{text}, but their outputs diverge by {found.outputs.divergence:.3g} on {told}"


def _models(found: Difference) -> Table:
    table = grid()
    table.add_column("")
    for heading, model in (("before", found.before), ("after", found.after)):
        title = Text(heading)
        title.append("\n" + elide(model.name, _NAME_WIDTH), "not bold dim")
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True, vertical="bottom")
    a, b = found.before, found.after
    x, y = a.totals, b.totals
    rows = [
        ("MACs", numbers.si, x.macs, y.macs),
        ("parameters", numbers.si, x.parameters, y.parameters),
        ("ESN'_d (MAC·bit)", numbers.si, x.esn_prime, y.esn_prime),
        ("bits per MAC", numbers.bits, x.bits_per_mac, y.bits_per_mac),
        ("stored tensors", numbers.size, x.initializer_bytes, y.initializer_bytes),
        ("file size", numbers.size, a.file_bytes, b.file_bytes),
        ("nodes", numbers.si, a.nodes, b.nodes),
    ]
    for label, show, before, after in rows:
        part = numbers.times(numbers.ratio(after, before))
        table.add_row(cell(label), cell(show(before)), cell(show(after)), cell(part, "bold"))
    if found.outputs is not None and found.outputs.latency is not None:
        first, second = found.outputs.latency
        times = [numbers.milliseconds(t.median_ms) for t in (first, second)]
        ratio = numbers.times(second.ratio)
        table.add_row(cell("latency (median)"), *map(cell, times), cell(ratio, "bold"))
    return table


def _outputs(found: OutputsDifference) -> Iterator[Table | Text]:
    told = f"Outputs on {count(found.samples, 'sample')} of {found.images}"
    yield Text(told, style="bold")  # a title would be broken to the table's width
    table = grid()
    table.add_column("output", no_wrap=True)
    for title in ("top-1", "cosine", "SNR", "KL"):
        table.add_column(title, justify="right", no_wrap=True)
    reasons = []
    for output in found.outputs:
        figures = output.agreement
        if figures is None:
            reasons.append(f"{output.output}: {output.reason}")
            continue
        kl = numbers.UNKNOWN if figures.kl is None else f"{figures.kl:.3g}"
        shown = [numbers.percent(figures.top1), numbers.cosine(figures.cosine)]
        shown += [numbers.decibel(figures.snr_db), kl]
        table.add_row(cell(elide(output.output, 30)), *map(cell, shown))
    yield table
    for reason in reasons:
        yield Text(f"not compared: {reason}")
    yield note(f"Divergence: {found.divergence:.4g}.")


def _list(title: str, lines: Sequence[tuple[str, str]]) -> Table:
    table = grid(title)
    table.show_header = False
    if any(label for label, _ in lines):
        table.add_column("", overflow="fold", max_width=38)
    table.add_column("", overflow="fold")
    for label, text in lines:
        shown = (cell(label), cell(text)) if len(table.columns) == 2 else (cell(text),)
        table.add_row(*shown)
    return table
