"""What a spatial pruning gives up: by a ratio, by a target of MACs, or by a plan."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import BudgetError, PlanError
from onnx_esn.numerics.kernel_positions import (
    Cut,
    choose_windows,
    common_cut,
    select_positions,
    windows,
)
from onnx_esn.passes.spatial.candidates import Candidate
from onnx_esn.plans import SpatialEntry, SpatialPlan
from onnx_esn.plans.spatial import pack_mask, unpack_mask

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Decision:
    """What happens to one weight.

    Attributes:
        candidate: the weight.
        kept: (M, P), which positions stay; none of those that are cut.
        cut: what is cut off all its kernels.
    """

    candidate: Candidate
    kept: Mask
    cut: Cut

    @property
    def inside(self) -> Mask:
        """(P,), which positions are left by the cut."""
        return _inside(self.candidate.kernel, self.cut)

    @property
    def zeroed(self) -> int:
        """Positions that are zero and not cut off, over all filters."""
        return int((~self.kept[:, self.inside]).sum())


def by_ratio(candidates: Sequence[Candidate], ratio: float, scope: str) -> list[Decision]:
    """Give up the least important positions of the filters; cut what no filter keeps."""
    masks = select_positions([x.importance for x in candidates], ratio, scope)
    cuts = [common_cut(m, x.kernel, x.most) for m, x in zip(masks, candidates, strict=True)]
    return [Decision(x, m, c) for x, m, c in zip(candidates, masks, cuts, strict=True)]


def by_macs(candidates: Sequence[Candidate], total: int, target: float) -> list[Decision]:
    """Cut kernels until the MACs are at `target` or below, for the least importance.

    Args:
        candidates: the weights.
        total: MACs of the model.
        target: MACs to reach.

    Raises:
        BudgetError: the smallest kernels cost more.
    """
    free = [x for x in candidates if x.macs and x.most]
    options = [windows(x.importance, x.kernel, x.most) for x in free]
    costs = [x.macs or 0 for x in free]
    fixed = total - sum(costs)
    shares = [min(w.share for w in found) for found in options]
    least = fixed + sum(c * s for c, s in zip(costs, shares, strict=True))
    if least > target and total > target:
        raise BudgetError(
            f"{target:,.0f} MACs cannot be reached by smaller kernels: with the smallest that "
            f"their padding allows {math.ceil(least):,} remain; ask for at least that, or prune "
            "channels"
        )
    chosen = choose_windows(options, costs, target - fixed) if free else []
    assert chosen is not None  # the smallest fit
    picked = {x.name: w[i].cut for x, w, i in zip(free, options, chosen, strict=True)}
    return [whole_cut(x, picked.get(x.name, _nothing(x))) for x in candidates]


def whole_cut(candidate: Candidate, cut: Cut) -> Decision:
    """Cut kernels, and zero nothing of the rest."""
    kept = np.broadcast_to(_inside(candidate.kernel, cut), candidate.importance.shape)
    return Decision(candidate, kept, cut)


def to_plan(decisions: Sequence[Decision]) -> SpatialPlan:
    """The decisions as data; weights that keep all are left out."""
    entries = []
    for d in decisions:
        if not d.kept.all():
            text = pack_mask(~d.kept) if d.zeroed else ""
            x = d.candidate
            entries.append(SpatialEntry(x.name, x.kernel, d.cut.begin, d.cut.end, text))
    return SpatialPlan(tuple(entries))


def by_plan(candidates: Sequence[Candidate], plan: SpatialPlan) -> list[Decision]:
    """The decisions of a plan.

    Raises:
        PlanError: it does not fit the model.
    """
    of = {x.name: x for x in candidates}
    found: list[Decision] = []
    for entry in plan.layers:
        if any(d.candidate.name == entry.node for d in found):
            raise PlanError(f"plan: it names {entry.node!r} twice")
        x = of.get(entry.node)
        if x is None:
            close = difflib.get_close_matches(entry.node, of, 3)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise PlanError(f"plan: {entry.node!r} has no kernel positions to give up{hint}")
        if entry.kernel != x.kernel:
            sizes = ("×".join(map(str, k)) for k in (x.kernel, entry.kernel))
            raise PlanError("plan: the kernel of {!r} is {}, not {}".format(entry.node, *sizes))
        cut = Cut(entry.begin, entry.end)
        room = zip((*cut.begin, *cut.end), (*x.most.begin, *x.most.end), strict=True)
        nothing_left = min(cut.left(x.kernel)) < 1
        if nothing_left or any(a > b for a, b in room):
            why = x.fixed or "its padding does not leave that much room"
            why = "nothing of it would be left" if nothing_left else why
            raise PlanError(f"plan: the kernel of {entry.node!r} cannot be cut so far: {why}")
        decision = whole_cut(x, cut)
        if entry.zeroed:
            try:
                zeroed = unpack_mask(entry.zeroed, x.importance.shape)
            except PlanError as error:
                raise PlanError(f"plan: {entry.node!r}: {error}") from error
            decision = Decision(x, decision.kept & ~zeroed, cut)
        found.append(decision)
    return found


def _nothing(x: Candidate) -> Cut:
    return Cut((0,) * len(x.kernel), (0,) * len(x.kernel))


def _inside(kernel: Sequence[int], cut: Cut) -> Mask:
    inside = np.zeros(kernel, np.bool_)
    inside[cut.slices(kernel)] = True
    return inside.reshape(-1)
