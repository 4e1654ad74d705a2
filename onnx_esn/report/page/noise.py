"""The signal-to-noise ratio of each layer's output, in the order of the graph."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_esn.report import numbers
from onnx_esn.report.layout import count, elide

from .axes import Axis
from .markup import Child, Markup, element, fragment, visible
from .pieces import Section, name, section
from .subject import Document, Subject

_MOST = 240  # stems that can be told apart
_HEIGHT = 220


def noise_section(subject: Subject) -> Section | None:
    """The section; None where no layer's output was compared."""
    known = [(i, x) for i, x in enumerate(subject.layers) if x["output_snr_db"] is not None]
    if not known:
        return None
    worst = min(known, key=lambda entry: entry[1]["output_snr_db"])[1]
    finding = fragment(
        f"Of {count(len(known), 'output')} the noisiest is that of ",
        name(worst["name"], 56),
        f", {numbers.decibel(worst['output_snr_db'])}.",
    )
    samples = subject.report["samples"]
    told = (
        f"Signal over noise of what each layer puts out, normalization included, against the input "
        f"model on {count(samples, 'image')}; the first layer is on the left."
    )
    exact = sum(bool(x["output_equal"]) for x in subject.layers)
    if exact:
        told += f" Not drawn, because equal to the last bit: {count(exact, 'output')}."
    if len(known) > _MOST:
        told += f" Of neighbours the noisiest is drawn, {_MOST} in all."
    chart = noise_chart(known, len(subject.layers))
    return section("noise", "Noise", finding, chart, element("p", told, class_="note"))


def noise_chart(known: Sequence[tuple[int, Document]], layers: int) -> Markup:
    """A stem for each layer, linked to its row; the worst of neighbours where there are many."""
    shown = _worst_of_neighbours(known, layers)
    values = [x["output_snr_db"] for _, x in shown]
    axis = Axis(min(0.0, *values), max(*values, 1.0) * 1.05)
    across = Axis(-0.7, layers - 0.3)
    parts: list[Child] = []
    for tick in axis.ticks(5):
        y = f"{100 - axis.place(tick)}%"
        parts.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{tick:g}", x=-8, y=y, class_="tick end"))
    zero = f"{100 - axis.place(max(0.0, axis.low))}%"
    for index, layer in shown:
        x, y = f"{across.place(index)}%", f"{100 - axis.place(layer['output_snr_db'])}%"
        told = f"{visible(layer['name'])}: {numbers.decibel(layer['output_snr_db'])}"
        parts.append(
            element(
                "a",
                element("title", elide(told, 200)),
                element("line", x1=x, x2=x, y1=zero, y2=y, class_="stem"),
                element("circle", cx=x, cy=y, r=3.5 if len(shown) <= 60 else 2.2),
                href=f"#layer-{index}",
                aria_label=elide(told, 200),
            )
        )
    svg = element("svg", *parts, width="100%", height=_HEIGHT, class_="plot", id="noise-chart")
    title = element("p", "dB", class_="axis-title")
    return element("figure", title, element("div", svg, class_="plot-area"), class_="chart")


def _worst_of_neighbours(
    known: Sequence[tuple[int, Document]], layers: int
) -> list[tuple[int, Document]]:
    if len(known) <= _MOST:
        return list(known)
    worst: dict[int, tuple[int, Document]] = {}
    for index, layer in known:
        place = index * _MOST // layers
        if place not in worst or layer["output_snr_db"] < worst[place][1]["output_snr_db"]:
            worst[place] = (index, layer)
    return list(worst.values())
