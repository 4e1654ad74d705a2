"""What was pruned where: each channel group as strips of its layers' filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx_esn.report import numbers
from onnx_esn.report.layout import count

from .markup import Child, Markup, element
from .pieces import Section, legend, name, section
from .report import FLOAT, REMOVED
from .subject import Document, Subject

_OPEN = 40  # groups that are shown at once
_MEMBERS = 3
_NAME = 34
_BINS, _FEW_BINS, _MANY_GROUPS = 256, 48, 200
_HIGH, _RUG = 8, 3  # units of height: a bit is one


def strip_section(subject: Subject) -> Section | None:
    """The section; None where there are no groups."""
    groups = subject.report["groups"]
    if not groups:
        return None
    layers = {layer["name"]: layer for layer in subject.layers}
    bins = _BINS if len(groups) <= _MANY_GROUPS else _FEW_BINS
    rows = [_row(group, layers, bins) for group in groups]
    hit = sum(_lost(group, layers)[0] > 0 for group in groups)
    lost = sum(_lost(group, layers)[0] for group in groups)
    total = sum(member["filters"] for group in groups for member in group["members"])
    finding = "No filter was removed."
    if lost:
        finding = (
            f"{lost:,} of {count(total, 'filter')} were removed "
            f"({numbers.percent(lost / total)}), in {hit:,} of {count(len(groups), 'group')}."
        )
    marks = legend(
        ("sky", "bits of each filter, 1 to 8, in the order of the input model"),
        ("cut", "below the line: removed"),
        *((("float", "in floats"),) if _any_float(layers) else ()),
    )
    note = "A group holds layers whose channels can only go together, as an addition joins them."
    body: list[Child] = [element("ul", *rows[:_OPEN], class_="strips")]
    if len(rows) > _OPEN:
        more = element("summary", f"{count(len(rows) - _OPEN, 'more group')}")
        body.append(element("details", more, element("ul", *rows[_OPEN:], class_="strips")))
    return section("pruned", "Channels", finding, marks, *body, element("p", note, class_="note"))


def strip(codes: str, most: int = _BINS) -> Markup:
    """Bits as a skyline, and below it a mark for what is gone; neighbours joined above `most`."""
    bins = _binned(codes, most)
    paths = {
        "float": _outline([_HIGH * share for _, _, share in bins]),
        "sky": _outline([bits for bits, _, _ in bins]),
        "gone": _outline([_RUG * share for _, share, _ in bins], up=False),
    }
    return element(
        "svg",
        *(element("path", d=path, class_=kind) for kind, path in paths.items() if path),
        viewBox=f"0 0 {len(bins)} {_HIGH + _RUG}",
        preserveAspectRatio="none",
        class_="strip",
        aria_hidden="true",
    )


def _binned(codes: str, most: int) -> list[tuple[float, float, float]]:
    """(mean bits, share removed, share in floats) of each bin of filters."""
    size = max(1, -(-len(codes) // most))
    bins = []
    for start in range(0, len(codes), size):
        part = codes[start : start + size]
        gone, floats = part.count(REMOVED), part.count(FLOAT)
        bits = sum(int(code) for code in part if code.isdigit())
        bins.append((bits / len(part), gone / len(part), floats / len(part)))
    return bins


def _outline(heights: Sequence[float], up: bool = True) -> str:
    """A path over columns of width 1, from the line at `_HIGH` up or down; runs are one step."""
    if not any(heights):
        return ""
    path, at = f"M0 {_HIGH}", 0.0
    for height, length in _runs(heights):
        if height != at:
            path += f"v{_short(at - height if up else height - at)}"
            at = height
        path += f"h{length}"
    return path + f"V{_HIGH}z"


def _runs(values: Iterable[float]) -> list[tuple[float, int]]:
    runs: list[tuple[float, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return runs


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _row(group: Document, layers: Mapping[str, Document], bins: int) -> Markup:
    lost, held = _lost(group, layers)
    members = [m["node"] for m in group["members"]]
    drawn = [_member(layers.get(node), node, bins) for node in members[:_MEMBERS]]
    if len(members) > _MEMBERS:
        rest = [_member(layers.get(node), node, bins) for node in members[_MEMBERS:]]
        summary = element("summary", f"{count(len(rest), 'more layer')} of this group")
        drawn.append(element("li", element("details", summary, element("ul", *rest))))
    told = f"{lost:,} of {count(held, 'filter')} removed" if lost else "nothing removed"
    why = None
    if group["reason"]:
        why = element("p", "Locked: ", group["reason"], class_="why")
    elif group["locks"]:
        locks = "; ".join(f"{x['classes']:,} because {x['reason']}" for x in group["locks"][:3])
        why = element("p", f"Locked of {group['width']:,}: ", locks, class_="why")
    head = element(
        "div",
        element("b", told, class_=None if lost else "none"),
        element("small", f" {count(len(members), 'layer')}"),
        why,
        class_="group",
    )
    return element("li", head, element("ul", *drawn, class_="members"))


def _member(layer: Document | None, node: str, bins: int) -> Markup:
    codes = None if layer is None else layer["filters"]
    if layer is None or not codes:
        return element(
            "li", name(node, _NAME), element("small", "not known which filters are left")
        )
    gone = codes.count(REMOVED)
    told = f"{len(codes) - gone:,} of {len(codes):,} left" if gone else f"all {len(codes):,} left"
    after = layer["after"]
    if after["quantized"] and after["bits_mean"] is not None:
        told += f", {numbers.bits(after['bits_mean'])} bits"
    return element("li", name(node, _NAME), strip(codes, bins), element("small", told))


def _any_float(layers: Mapping[str, Document]) -> bool:
    return any(FLOAT in (layer["filters"] or "") for layer in layers.values())


def _lost(group: Document, layers: Mapping[str, Document]) -> tuple[int, int]:
    """Filters that are gone, and that there were, in the layers of a group."""
    codes = [
        layers[m["node"]]["filters"] or "" for m in group["members"] if m["node"] in layers
    ]  # fmt: skip
    return sum(c.count(REMOVED) for c in codes), sum(map(len, codes))
