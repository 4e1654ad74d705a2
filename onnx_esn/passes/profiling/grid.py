"""The widths at which a layer is timed: corners, and points spread between them by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A layer that is left with less than this share of its channels is off the grid.
_LEAST = 8


@dataclass(frozen=True)
class Widths:
    """What one axis of a layer may be.

    Attributes:
        full: channels it has.
        unit: what widths are multiples of; the full width is allowed besides.
        least: no width is below this.
    """

    full: int
    unit: int = 1
    least: int = 1

    def choices(self) -> list[int]:
        """All widths of the grid, ascending; the full one is the last."""
        least = max(self.full // _LEAST, self.least, 1)
        return [*range(-(-least // self.unit) * self.unit, self.full, self.unit), self.full]


def width_grid(
    n_in: Widths, n_out: Widths, points: int, seed: int, *, tied: bool = False
) -> list[tuple[int, int]]:
    """At most `points` different pairs of widths, the full pair first.

    Args:
        n_in, n_out: the axes.
        points: how many.
        seed: says which; one seed, one grid.
        tied: both widths are the same number (a depthwise layer).
    """
    rows, columns = n_in.choices(), n_out.choices()
    if tied:
        picked = _spread(columns, points, np.random.default_rng(seed))
        return list(dict.fromkeys((w, w) for w in (columns[-1], columns[0], *picked)))[:points]
    corners = [(a, b) for a in (rows[-1], rows[0]) for b in (columns[-1], columns[0])]
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(corners)
    for _ in range(8):  # a small grid repeats itself
        if len(found) < min(points, len(rows) * len(columns)):
            more = zip(_spread(rows, points, rng), _spread(columns, points, rng), strict=True)
            found.update(dict.fromkeys(more))
    return list(found)[:points]


def _spread(choices: Sequence[int], points: int, rng: np.random.Generator) -> list[int]:
    """One choice from each of `points` equal stretches, shuffled (a Latin hypercube's axis)."""
    at = (rng.permutation(points) + rng.random(points)) / points
    return [choices[int(x * len(choices))] for x in at]
