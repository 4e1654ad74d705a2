"""Every figure of both models, with the ratio."""

from __future__ import annotations

from collections.abc import Callable

from onnx_esn.report import numbers

from .markup import Child, Markup, element
from .pieces import MEASURED, name
from .subject import Document, Subject


def snr_text(agreement: Document) -> str:
    """SNR in dB; ``exact`` where nothing differs."""
    if agreement["snr_db"] is None and agreement["normalized_error"] == 0:
        return "exact"
    return numbers.decibel(agreement["snr_db"])


def figure_table(subject: Subject) -> Markup:
    """Every figure of both models, with the ratio."""
    before, after = subject.before, subject.after
    rows = [
        _row("MACs", before["macs"], after["macs"], numbers.si),
        _row("parameters", before["parameters"], after["parameters"], numbers.si),
        _row("ESN'_d (MAC·bit)", before["esn_prime"], after["esn_prime"], numbers.si),
        _row("bits per MAC", before["mean_bits"], after["mean_bits"], numbers.bits),
        _row("file size", before["file_bytes"], after["file_bytes"], numbers.size),
    ]
    first, second = before["latency"], after["latency"]
    if first is not None and second is not None:
        for key, label in (("median_ms", "latency, median"), ("p90_ms", "latency, 9 of 10 below")):
            ratio = numbers.times(second["ratio"]) if key == "median_ms" else ""
            times = (numbers.milliseconds(first[key]), numbers.milliseconds(second[key]), ratio)
            rows.append(_cells(label, *times, measured=True))
    if after["accuracy"] is not None:
        a, b = before["accuracy"], after["accuracy"]
        rows.append(
            _cells(
                "accuracy",
                numbers.share(a["value"], a["error"]),
                numbers.share(b["value"], b["error"]),
                numbers.points(b["difference"], b["difference_error"]),
            )
        )
    agreement = after["agreement"]
    if agreement is not None and "reason" not in agreement:
        shown = {
            "top-1 agreement": numbers.percent(agreement["top1"]),
            "cosine": numbers.cosine(agreement["cosine"]),
            "SNR": snr_text(agreement),
            "divergence (KL)": _nats(agreement["kl"]),
        }
        rows += [
            _cells(label, numbers.UNKNOWN, text, "")
            for label, text in shown.items()
            if text != numbers.UNKNOWN
        ]
    head = element("tr", *(element("th", t, scope="col") for t in ("", "before", "after", "ratio")))
    caption = element("caption", *_measured_on(subject)) if subject.evaluation else None
    return element(
        "table", caption, element("thead", head), element("tbody", *rows), class_="plain"
    )


def _measured_on(subject: Subject) -> list[Child]:
    assert subject.evaluation is not None
    told = f"Measured on {subject.evaluation['samples']:,} images of "
    return [told, name(subject.evaluation["images"]), "; ± is one standard error."]


def _row(
    label: str,
    before: float | None,
    after: float | None,
    show: Callable[[float | None], str],
) -> Markup:
    ratio = numbers.times(numbers.ratio(after, before))
    return _cells(label, show(before), show(after), ratio)


def _cells(label: str, *shown: str, measured: bool = False) -> Markup:
    marks = MEASURED if measured else {}
    cells = [element("td", text, **marks) for text in shown]
    return element("tr", element("th", label, scope="row"), *cells)


def _nats(value: float | None) -> str:
    return numbers.UNKNOWN if value is None else f"{value:.3g} nats"
