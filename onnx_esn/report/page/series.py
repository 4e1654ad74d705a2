"""Which points of a sweep belong together, and what they are drawn as."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_esn.report.plot_style import method_rank, method_style

from .markup import Markup, element
from .subject import Document

# Marks around (0, 0), so that a method is known by its shape too.
_MARKS = (
    "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6z",
    "M-5.5-5.5h11v11h-11z",
    "M0-6.5L6.5 5h-13z",
    "M0-7.5L7 0 0 7.5-7 0z",
    "M-6-3.5L-3.5-6 0-2.5 3.5-6 6-3.5 2.5 0 6 3.5 3.5 6 0 2.5-3.5 6-6 3.5-2.5 0z",
    "M0 6.5L6.5-5h-13z",
    "M-2-6.5h4v4.5h4.5v4h-4.5v4.5h-4v-4.5h-4.5v-4h4.5z",
)
# Whichever methods a sweep has, each has the mark and the colour (a class) of its own.
_OF_METHOD = {"quantize-only": 0, "prune-only": 1, "prune-then-quantize": 2, "joint": 3,
              "nearest": 4, "aciq": 5}  # fmt: skip


class Series:
    """The points that belong together: one method, or one pruning ratio of a grid."""

    def __init__(self, label: str, look: int, points: Sequence[tuple[int, Document]]) -> None:
        self.label, self.look = label, look % len(_MARKS)
        self.points = sorted(points, key=lambda entry: float(entry[1]["esn_prime"]))

    def mark(self) -> Markup:
        """Its mark, in its colour."""
        return element("path", d=_MARKS[self.look], class_=f"mark m{self.look}")


def series_of(sweep: Document) -> list[Series]:
    """The finished points, method by method or ratio by ratio."""
    metric = sweep["metric"]
    done = [
        (index, point)
        for index, point in enumerate(sweep["points"])
        if point["status"] == "done" and point[metric] is not None and point["esn_prime"] > 0
    ]
    methods = sorted({p["method"] for _, p in done if p["method"] is not None}, key=method_rank)
    found = [
        Series(
            method_style(m).label, _OF_METHOD.get(m, 6), [e for e in done if e[1]["method"] == m]
        )
        for m in methods
    ]
    ratios = sorted({p["ratio"] for _, p in done if p["method"] is None})
    for look, ratio in enumerate(ratios):
        label = f"{100 * ratio:g} % of the filters removed" if ratio else "no filters removed"
        mine = [e for e in done if e[1]["method"] is None and e[1]["ratio"] == ratio]
        found.append(Series(label, look, mine))
    return found
