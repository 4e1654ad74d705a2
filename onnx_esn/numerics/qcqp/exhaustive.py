"""All choices, where they are few."""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.qcqp.instance import SLACK, Count, Floats, Instance, Mask

MOST_CLASSES = 16


def exhaustive(instance: Instance) -> Mask | None:
    """Return the best choice (n,) of all 2ⁿ, or None where none is feasible.

    Of equals, the one that keeps most; then that with the higher classes.
    """
    n = instance.size
    x = (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(np.float64)
    ok = np.ones(len(x), np.bool_)
    for b in instance.budgets:
        cost = b.fixed + sum(t.factor * _left(t.left, x) * _left(t.right, x) for t in b.terms)
        ok &= cost <= b.limit + SLACK * abs(b.limit)
    for w in instance.widths:
        left = _left(w.count, x)
        ok &= (left == w.whole) | ((left >= w.least) & (left % w.step == 0))
    if not ok.any():
        return None
    value = x @ instance.linear
    for block in instance.blocks:
        value += np.einsum("ni,ni->n", x[:, block.rows] @ block.worth, x[:, block.cols])
    value = np.where(ok, value, -np.inf)
    best = np.flatnonzero(value >= value.max() - 1e-12 * abs(value.max()))
    kept = x[best].sum(axis=1)
    return np.asarray(x[best[np.flatnonzero(kept == kept.max())[-1]]] > 0)


def _left(count: Count, x: Floats) -> Floats:
    return np.asarray(count.fixed + x[:, count.classes] @ count.weights)
