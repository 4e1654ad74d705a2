"""Which channel classes to remove: least score first, within a budget, no layer emptied."""

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
    budget: float,
    minimum: npt.ArrayLike = 1,
) -> npt.NDArray[np.bool_]:
    """Return which classes (G,) to remove.

    The classes are visited once, in ascending score (ties by index). One is removed if the weight
    removed so far plus its own stays within `budget` (up to 1e-12 of it) and every constraint set
    that holds it keeps at least its minimum of members; else it is passed over and stays, and
    lighter ones after it may still go. Constraints are sets of class indices, which may overlap;
    minimum is a scalar or one number per set. A set no larger than its minimum keeps all members.

    Raises:
        VerificationError: a score is NaN, or a weight is negative or not finite.
    """
    scores, weights = np.asarray(score, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if np.isnan(scores).any():
        raise VerificationError("the score of a channel class is not a number")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise VerificationError("the weight of a channel class is negative or not finite")
    G = scores.size
    sets = [np.unique(np.asarray(members, dtype=np.int64)) for members in constraints]
    sizes = np.array([members.size for members in sets], dtype=np.int64)
    spare = (sizes - np.broadcast_to(np.asarray(minimum, dtype=np.int64), sizes.shape)).tolist()

    # The sets of class g are owner[start[g]:start[g + 1]].
    member = np.concatenate(sets) if sets else np.zeros(0, dtype=np.int64)
    owner = np.repeat(np.arange(len(sets)), sizes)[np.argsort(member, kind="stable")].tolist()
    start = np.concatenate([[0], np.cumsum(np.bincount(member, minlength=G))]).tolist()

    removed = np.zeros(G, dtype=bool)
    heaviest, spent = budget + _SLACK * abs(budget), 0.0
    for g in np.argsort(scores, kind="stable").tolist():
        after = spent + float(weights[g])
        owners = owner[start[g] : start[g + 1]]
        if after > heaviest or any(spare[s] <= 0 for s in owners):
            continue
        removed[g] = True
        spent = after
        for s in owners:
            spare[s] -= 1
    return removed
