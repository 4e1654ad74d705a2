"""Which channel classes to remove: least score first, within budgets, no layer emptied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError

_SLACK = 1e-12  # of the budget: 0.29·100 = 28.999999999999996 must buy 29 classes


def select_removals(
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    constraints: Sequence[npt.ArrayLike],
    *,
    budget: npt.ArrayLike,
    minimum: npt.ArrayLike = 1,
    account: npt.ArrayLike = 0,
) -> npt.NDArray[np.bool_]:
    """Return which classes (G,) to remove.

    The classes are visited once, in ascending score (ties by index). One is removed if the weight
    removed so far plus its own stays within `budget` (up to 1e-12 of it) and every constraint that
    holds it keeps at least its minimum; else it is passed over and stays, and lighter ones after
    it may still go. A constraint is an array of class indices, in any order: a class that is in
    it k times counts k. Constraints may overlap; minimum is a scalar or one number per constraint.
    A constraint no larger than its minimum keeps all its classes.

    Budgets can be several: `budget` (A,), and for each class the `account` (G,) it is paid from.

    Raises:
        VerificationError: a score is NaN, or a weight is negative or not finite.
    """
    scores, weights = np.asarray(score, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if np.isnan(scores).any():
        raise VerificationError("the score of a channel class is not a number")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise VerificationError("the weight of a channel class is negative or not finite")
    G = scores.size
    sets = [np.asarray(members, dtype=np.int64) for members in constraints]
    sizes = np.array([members.size for members in sets], dtype=np.int64)
    spare = (sizes - np.broadcast_to(np.asarray(minimum, dtype=np.int64), sizes.shape)).tolist()

    # Class g is in the constraints owner[start[g]:start[g + 1]], times[…] times each.
    member = np.concatenate(sets) if sets else np.zeros(0, dtype=np.int64)
    pairs = member * max(len(sets), 1) + np.repeat(np.arange(len(sets)), sizes)
    unique, counts = np.unique(pairs, return_counts=True)
    member, owners = np.divmod(unique, max(len(sets), 1))
    owner, times = owners.tolist(), counts.tolist()
    start = np.searchsorted(member, np.arange(G + 1)).tolist()

    removed = np.zeros(G, dtype=bool)
    budgets = np.atleast_1d(np.asarray(budget, dtype=np.float64))
    left = (budgets + _SLACK * np.abs(budgets)).tolist()
    accounts = np.broadcast_to(np.asarray(account, dtype=np.int64), scores.shape).tolist()
    spent = [0.0] * len(left)
    for g in np.argsort(scores, kind="stable").tolist():
        a, own = accounts[g], range(start[g], start[g + 1])
        after = spent[a] + float(weights[g])
        if after > left[a] or any(spare[owner[i]] < times[i] for i in own):
            continue
        removed[g] = True
        spent[a] = after
        for i in own:
            spare[owner[i]] -= times[i]
    return removed
