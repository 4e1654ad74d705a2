"""How many classes of each kind stay: a mixed integer linear program over windows of counts.

Each kind takes one count of its window (one-hot y), each pair of kinds that share a table one pair
of counts (z ≥ 0 whose row and column sums are the two y). Tables and costs are linear in y and z,
so that this is exact on the windows: a multiple-choice knapsack where no pairs are, and near one
where the kinds that many others touch (residual streams) are few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_esn.numerics.qcqp.instance import Floats, Integers
from onnx_esn.numerics.qcqp.kinds import Kinds
from onnx_esn.numerics.qcqp.tables import Tables, linked

_GAP = 1e-4
_NODES = 1000  # of the search tree: a limit that is the same on every machine


class _Program:
    """Rows and columns as they are added."""

    def __init__(self) -> None:
        self.worth: list[Floats] = []
        self.upper: list[Floats] = []
        self.whole: list[Integers] = []
        self.size = 0
        self.entries: list[tuple[Integers, Integers, Floats]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def columns(self, worth: Floats, *, whole: bool, upper: float = 1.0) -> Integers:
        """Add variables 0 ≤ v ≤ upper with what each is worth."""
        n = worth.size
        self.worth.append(worth)
        self.upper.append(np.full(n, upper))
        self.whole.append(np.full(n, int(whole), dtype=np.int64))
        self.size += n
        return np.arange(self.size - n, self.size)

    def row(self, cols: Integers, values: Floats, low: float, high: float) -> None:
        """Add low ≤ values·v[cols] ≤ high."""
        at = np.full(cols.size, len(self.low), dtype=np.int64)
        self.entries.append((at, cols, values))
        self.low.append(low)
        self.high.append(high)

    def solve(self, seconds: float) -> Floats | None:
        """Return values of the variables, or None where none were found in time."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        # Scipy 1.12's solver knows no longer indices.
        rows = np.concatenate([e[0] for e in self.entries]).astype(np.int32)
        cols = np.concatenate([e[1] for e in self.entries]).astype(np.int32)
        data = np.concatenate([e[2] for e in self.entries])
        A = csr_array((data, (rows, cols)), shape=(len(self.low), self.size))
        result = milp(
            -np.concatenate(self.worth),
            integrality=np.concatenate(self.whole),
            bounds=Bounds(0, np.concatenate(self.upper)),
            constraints=LinearConstraint(A, self.low, self.high),
            options={"time_limit": max(seconds, 0.1), "mip_rel_gap": _GAP, "node_limit": _NODES},
        )
        return None if result.x is None else np.asarray(result.x, dtype=np.float64)


def best_counts(
    tables: Tables,
    kinds: Kinds,
    windows: Sequence[Integers],
    seconds: float,
    beat: float = -np.inf,
) -> Integers | None:
    """Return the best counts (K,) within the windows, budgets and widths; None: none found.

    Args:
        tables: what counts are worth.
        kinds: the costs.
        windows: the counts (ascending) that each kind may take.
        seconds: the time limit.
        beat: what they must be worth.
    """
    if not windows:
        return np.zeros(0, dtype=np.int64)
    program = _Program()
    y = [program.columns(t[w], whole=True) for t, w in zip(tables.unary, windows, strict=True)]
    for cols in y:
        program.row(cols, np.ones(cols.size), 1, 1)
    z = {}
    for a, b in linked(tables, kinds):
        wa, wb = windows[a], windows[b]
        shape = wa.size, wb.size
        table = tables.pairs[a, b][np.ix_(wa, wb)] if (a, b) in tables.pairs else np.zeros(shape)
        cols = program.columns(table.reshape(-1), whole=False).reshape(shape)
        z[a, b] = cols
        for own, lines in ((y[a], cols), (y[b], cols.T)):
            for v, line in zip(own, lines, strict=True):
                program.row(np.append(line, v), np.append(np.ones(line.size), -1.0), 0, 0)
    for cost in kinds.costs:
        scale = 1 / max(abs(cost.limit), 1e-300)
        cols = np.concatenate([*y, *(x.reshape(-1) for x in z.values())])
        values = [u[w] for u, w in zip(cost.unary, windows, strict=True)]
        values += [
            cost.pairs.get((a, b), 0.0) * np.outer(windows[a], windows[b]).reshape(-1).astype(float)
            for a, b in z
        ]
        program.row(
            cols, np.concatenate(values) * scale, -np.inf, (cost.limit - cost.const) * scale
        )
    if np.isfinite(beat):
        program.row(
            np.arange(program.size), np.concatenate(program.worth), beat - tables.const, np.inf
        )
    _add_widths(program, kinds, windows, y)
    found = program.solve(seconds)
    if found is None:
        return None
    k = np.array([w[int(found[v].argmax())] for v, w in zip(y, windows, strict=True)])
    return np.asarray(k, dtype=np.int64)


def _add_widths(
    program: _Program, kinds: Kinds, windows: Sequence[Integers], y: Sequence[Integers]
) -> None:
    """fixed + Σ weights·k is step·s, or whole where the binary w says so, and at least `least`."""
    for width in kinds.widths:
        if not width.kinds.size:
            continue
        cols = np.concatenate([y[a] for a in width.kinds])
        values = np.concatenate(
            [n * windows[a] for a, n in zip(width.kinds, width.weights, strict=True)]
        ).astype(float)
        least = min(width.least, width.whole) - width.fixed
        program.row(cols, values, least, np.inf)
        if width.step == 1:
            continue
        steps, rest = divmod(width.whole, width.step)
        s = program.columns(np.zeros(1), whole=True, upper=float(steps))
        w = program.columns(np.zeros(1), whole=True)
        both = np.concatenate([cols, s, w])
        program.row(both, np.append(values, [-width.step, -rest]), -width.fixed, -width.fixed)
        program.row(np.append(s, w), np.array([1.0, -steps]), 0, np.inf)
