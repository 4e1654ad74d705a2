"""What it cost and what it gained: four figures, and all of them in a table."""

from __future__ import annotations

from onnx_esn.report import numbers

from .figure_table import figure_table, snr_text
from .markup import Child, Markup, element, fragment
from .pieces import MEASURED, Section, bars, name, region, section
from .subject import Subject
from .sweep_points import point_name

_LARGER, _SLOWER = 1.01, 1.1  # from here on it is said
_HARDLY = 1 / 3  # of its bytes: 8 bits instead of 32 would leave less


def headline(subject: Subject) -> Section:
    """The first section."""
    tiles = [cost_tile(subject), quality_tile(subject), size_tile(subject), latency_tile(subject)]
    return section(
        "result",
        "Result",
        None,
        element("p", *verdict(subject), class_="verdict"),
        element("div", *tiles, class_="tiles"),
        size_hint(subject),
        element(
            "details",
            element("summary", "All figures, before and after"),
            region("All figures", figure_table(subject)),
        ),
    )


def verdict(subject: Subject) -> list[Child]:
    """The result in a sentence."""
    before, after = subject.before, subject.after
    share = numbers.ratio(after["esn_prime"], before["esn_prime"])
    parts: list[Child] = []
    if subject.sweep is not None:
        chosen = subject.sweep["points"][subject.report["choice"]["index"]]
        parts.append(f"With {point_name(chosen)}, ")
    parts.append(name(subject.name))
    if share is None:
        parts.append(": its cost is not known")
    else:
        parts += [" costs ", element("strong", numbers.percent(share)), " of what it did"]
    accuracy, agreement = after["accuracy"], after["agreement"]
    if accuracy is not None:
        parts += [
            " and is right in ",
            element("strong", numbers.percent(accuracy["value"])),
            f" of the cases, instead of {numbers.percent(before['accuracy']['value'])}.",
        ]
    elif agreement is not None and agreement.get("top1") is not None:
        parts += [
            " and gives the same answer in ",
            element("strong", numbers.percent(agreement["top1"])),
            " of the cases.",
        ]
    elif agreement is not None and "reason" not in agreement:
        parts += [", at an SNR of ", element("strong", snr_text(agreement)), " at its output."]
    else:
        parts.append(". Its quality was not measured.")
    return parts


def cost_tile(subject: Subject) -> Markup:
    """ESN'_d."""
    before, after = subject.before["esn_prime"], subject.after["esn_prime"]
    share = numbers.ratio(after, before)
    told = f"{numbers.percent(share)} of {numbers.si(before)}"
    return _tile("Cost", "ESN'_d, MAC × bit", numbers.si(after), told, bars(1.0, share))


def quality_tile(subject: Subject) -> Markup:
    """Accuracy, else agreement with the float model, else SNR."""
    accuracy, agreement = subject.after["accuracy"], subject.after["agreement"]
    samples = "" if subject.evaluation is None else f"{subject.evaluation['samples']:,} images"
    if accuracy is not None:
        old = subject.before["accuracy"]["value"]
        lost = numbers.points(accuracy["difference"], accuracy["difference_error"])
        told = f"{lost} from {numbers.percent(old)}"
        value, _, error = numbers.share(accuracy["value"], accuracy["error"]).partition(" ± ")
        right = fragment(value, element("span", f" ± {error}") if error else None)
        return _tile("Accuracy", samples, right, told, bars(old, accuracy["value"]))
    if agreement is None or "reason" in agreement:
        reason = "too few images to hold some out" if agreement is None else agreement["reason"]
        return _tile("Quality", "", "not measured", reason, None)
    if agreement["top1"] is not None:
        told = f"same answer as before; SNR {snr_text(agreement)}"
        shown = numbers.percent(agreement["top1"])
        return _tile("Agreement", samples, shown, told, bars(1.0, agreement["top1"]))
    told = f"cosine {numbers.cosine(agreement['cosine'])} with the output before"
    return _tile("Output SNR", samples, snr_text(agreement), told, None)


def size_tile(subject: Subject) -> Markup:
    """Bytes of the file."""
    before, after = subject.before["file_bytes"], subject.after["file_bytes"]
    share = numbers.ratio(after, before)
    told = fragment(
        f"{numbers.percent(share)} of {numbers.size(before)}", worse("larger", share, _LARGER)
    )
    scale = max(share or 1.0, 1.0)
    drawn = bars(1 / scale, (share or 0.0) / scale)
    return _tile("File", "on disk", numbers.size(after), told, drawn)


def worse(word: str, ratio: float | None, limit: float) -> Markup | None:
    """A word where a figure grew, by more than it may by chance."""
    if ratio is None or ratio <= limit:
        return None
    return element("span", f" ▲ {word}", class_="worse")


def size_hint(subject: Subject) -> Markup | None:
    """Why the file is hardly smaller, where that is so."""
    share = numbers.ratio(subject.after["file_bytes"], subject.before["file_bytes"])
    if (
        share is None
        or share <= _HARDLY
        or any({"format", "integers"} & set(stage["details"]) for stage in subject.stages)
    ):
        return None
    return element(
        "p",
        "The file holds floats that lie on the grid, so that every runtime reads them. To store "
        "them as integers of few bits, add ",
        element("code", "--format qdq"),
        ".",
        class_="note",
    )


def latency_tile(subject: Subject) -> Markup:
    """Median of one run, as measured."""
    before, after = subject.before["latency"], subject.after["latency"]
    if before is None or after is None:
        return _tile("Latency", "", "not measured", "asked for without, or no image left", None)
    told = fragment(
        f"{numbers.times(after['ratio'])} of {numbers.milliseconds(before['median_ms'])}",
        worse("slower", after["ratio"], _SLOWER),
    )
    scale = max(after["ratio"], 1.0)
    batch = (subject.evaluation or {}).get("latency_batch")
    unit = "measured, median" + (f", batch of {batch}" if batch and batch > 1 else "")
    drawn = bars(1 / scale, after["ratio"] / scale)
    shown = numbers.milliseconds(after["median_ms"])
    return _tile("Latency", unit, shown, told, drawn, measured=True)


def _tile(
    label: str,
    unit: str,
    shown: Child,
    told: Child,
    drawn: Markup | None,
    *,
    measured: bool = False,
) -> Markup:
    marks = MEASURED if measured else {}
    return element(
        "div",
        element("h3", label, element("small", unit) if unit else None),
        element("p", shown, class_="big", **marks),
        element("p", told, class_="told", **marks),
        None if drawn is None else element("div", drawn, **marks),
        class_="tile",
    )
