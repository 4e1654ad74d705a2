"""Models side by side: the closing table of `compress`, and `evaluate`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from onnx_esn.evaluation import Comparison, Evaluation
from onnx_esn.numerics.agreement import Agreement

from . import numbers
from .layout import cell, count, elide, grid, note

_NAME_WIDTH = 26
_LEAST_NAME = 10


class _Figure(NamedTuple):
    """A row of the two-model table, a column of the list."""

    label: str
    short: str
    show: Callable[[Evaluation], str]
    number: Callable[[Evaluation], float | None] | None = None


def _agreement(show: Callable[[Agreement], str]) -> Callable[[Evaluation], str]:
    return lambda m: numbers.UNKNOWN if m.agreement is None else show(m.agreement)


def _latency_ms(model: Evaluation) -> float | None:
    return None if model.latency is None else model.latency.median_ms


def _accuracy(model: Evaluation) -> str:
    if model.accuracy is None:
        return numbers.UNKNOWN
    return numbers.share(model.accuracy.value, model.accuracy.error)


_COST = (
    _Figure("MACs", "MACs", lambda m: numbers.si(m.macs), lambda m: m.macs),
    _Figure("parameters", "params", lambda m: numbers.si(m.parameters), lambda m: m.parameters),
    _Figure("ESN'_d (MAC·bit)", "ESN'_d", lambda m: numbers.si(m.esn_prime), lambda m: m.esn_prime),
    _Figure("bits per MAC", "bits", lambda m: numbers.bits(m.mean_bits), lambda m: m.mean_bits),
    _Figure("file size", "file", lambda m: numbers.size(m.file_bytes), lambda m: m.file_bytes),
    _Figure("latency (median)", "latency", lambda m: numbers.milliseconds(_latency_ms(m))),
)
# The reference agrees with itself: that is not a measurement, and not shown.
_AGREEMENT = (
    _Figure("top-1 agreement", "top-1", _agreement(lambda a: numbers.percent(a.top1))),
    _Figure("cosine", "cosine", _agreement(lambda a: numbers.cosine(a.cosine))),
    _Figure("SNR", "SNR", _agreement(lambda a: numbers.decibel(a.snr_db))),
)
_QUALITY = (*_AGREEMENT, _Figure("accuracy", "accuracy", _accuracy))


@dataclass(frozen=True)
class ComparisonTable:
    """Two models as before | after | ratio, any other number as one row for each.

    Attributes:
        comparison: the figures.
        headings: of the two columns.
    """

    comparison: Comparison
    headings: tuple[str, str] = ("before", "after")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out for the width there is."""
        models, reference = self.comparison.models, self.comparison.reference
        if len(models) == 2:
            before, after = models[reference], models[1 - reference]
            yield _pair_table(before, after, self.headings)
        else:
            yield _list_table(self.comparison, options.max_width)
        yield note(_caption(self.comparison, self.headings[0]))


def comparison_table(
    comparison: Comparison, *, headings: tuple[str, str] = ("before", "after")
) -> ComparisonTable:
    """A renderable for ``console.print``."""
    return ComparisonTable(comparison, headings)


def _pair_table(before: Evaluation, after: Evaluation, headings: tuple[str, str]) -> Table:
    table = grid()
    table.add_column("")
    for heading, model in zip(headings, (before, after), strict=True):
        title = Text(heading)
        if model.name != heading:
            title.append("\n" + elide(model.name, _NAME_WIDTH), "not bold dim")
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True, vertical="bottom")
    shown = [f for f in (*_COST, *_QUALITY) if _is_known(f, (before, after))]
    last = max((i for i, f in enumerate(shown) if f in _COST), default=-1)
    for index, figure in enumerate(shown):
        first = numbers.UNKNOWN if figure in _AGREEMENT else figure.show(before)
        compared = cell(_ratio(figure, before, after), "bold")
        row = (cell(figure.label), cell(first), cell(figure.show(after)), compared)
        table.add_row(*row, end_section=index == last)
    return table


def _ratio(figure: _Figure, before: Evaluation, after: Evaluation) -> str:
    if figure.label.startswith("latency"):
        return "" if after.latency is None else numbers.times(after.latency.ratio)
    if figure.label == "accuracy":
        change = after.accuracy
        return "" if change is None else numbers.points(change.difference, change.difference_error)
    if figure.number is None:
        return ""
    return numbers.times(numbers.ratio(figure.number(after), figure.number(before)))


def _list_table(comparison: Comparison, width: int) -> Table:
    models, reference = comparison.models, comparison.reference
    columns = []
    for figure in (*_COST, *_QUALITY):
        values = [figure.show(model) for model in models]
        if figure in _AGREEMENT:
            values[reference] = numbers.UNKNOWN
        if figure.short != "bits" and set(values) != {numbers.UNKNOWN}:
            columns.append(_with_unit(figure.short, values))
    widths = [max(map(len, (*title.split("\n"), *values))) for title, values in columns]
    names = max(len(model.name) for model in models)
    gap = 2 if names + sum(widths) + 2 * len(widths) <= width else 1
    room = max(width - sum(widths) - gap * len(widths), _LEAST_NAME)
    table = grid(gap=gap)
    table.add_column("model", no_wrap=True, vertical="bottom")
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for index, model in enumerate(models):
        style = "bold" if index == reference and len(models) > 1 else ""
        row = [cell(values[index], style) for _, values in columns]
        table.add_row(cell(elide(model.name, room), style), *row)
    return table


def _with_unit(title: str, values: list[str]) -> tuple[str, list[str]]:
    """Move a unit that all values share into the heading."""
    known = [value for value in values if value not in (numbers.UNKNOWN, "exact")]
    units = {value.rpartition(" ")[2] for value in known if " " in value}
    if len(units) != 1 or not all(value.endswith(f" {next(iter(units))}") for value in known):
        return title, values
    unit = units.pop()
    return f"{title}\n{unit}", [value.removesuffix(f" {unit}") for value in values]


def _is_known(figure: _Figure, models: tuple[Evaluation, ...]) -> bool:
    return any(figure.show(model) != numbers.UNKNOWN for model in models)


def _caption(comparison: Comparison, before: str) -> str:
    models = comparison.models
    told = f"{count(comparison.samples, 'sample')} of {comparison.images}"
    if len(models) > 1:
        name = models[comparison.reference].name
        name = "the model before" if name == before else elide(name, 32)
        told = f"Agreement with {name} on {told}."
    else:
        told = f"Measured on {told}."
    if any(model.accuracy for model in models):
        told += " ± one standard error."
    if comparison.latency_batch is not None and comparison.latency_batch > 1:
        told += f" Latency of a batch of {comparison.latency_batch}."
    return told
