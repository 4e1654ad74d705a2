"""Bits per filter by the rule of ACIQ: the number of levels goes with the 2/3 power of the range.

    M_i = round(log2(B·α_i^(2/3) / Σ_i α_i^(2/3))),    B = n·2^t levels for the n filters of a layer

minimises Σ Δ_i² for a sum of levels B. The rule does not say what B is; t, the same for all layers,
is the largest that a budget allows. A filter gets its k-th bit at the one
t = k − ½ − log2(n·α_i^(2/3)/Σα^(2/3)), so the candidates are known, and the largest is exact.

Source: Banner, Nahshan, Soudry: "Post-training 4-bit quantization of convolution networks for
rapid-deployment", eq. (11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import MAX_BITS, Floats


@dataclass(frozen=True)
class RangedLayer:
    """The filters of one layer.

    Attributes:
        ranges: α (M,), not negative, in any unit.
        cost: what one bit of each costs (M,).
        most_bits: that a filter may get.
    """

    ranges: Floats
    cost: Floats
    most_bits: int = MAX_BITS


def allocate_by_range(
    layers: Sequence[RangedLayer], budget: float, fixed: float = 0.0, *, least_bits: int = 1
) -> list[Integers]:
    """Return the bits (M,) of the filters of each layer, at a cost of at most `budget`.

    `fixed` is what anything else takes of that.

    What the rule gives less than `least_bits` gets 0, but for the widest filter of each layer,
    which keeps that many. Filters of range 0 get 0.

    Raises:
        BudgetError: the widest filters alone cost more.
    """
    base = [_widest(x.ranges) * np.int64(least_bits) for x in layers]
    spent = float(sum((b * x.cost).sum() for x, b in zip(layers, base, strict=True)))
    if fixed + spent > budget:
        bits = f"{least_bits} bit{'' if least_bits == 1 else 's'}"
        others = f", and all else {fixed:,.0f}" if fixed else ""
        raise BudgetError(
            f"a cost of {budget:,.0f} cannot be reached: one filter of each layer at {bits} costs "
            f"{spent:,.0f}{others}. Raise the target, prune first or exclude fewer layers."
        )
    at, gains, costs = [np.zeros(0)], [], [np.zeros(0)]
    for layer, b in zip(layers, base, strict=True):
        passed, gain = _upgrades(layer, b, least_bits)
        at.append(passed.ravel())
        costs.append((gain * layer.cost[:, None]).ravel())
        gains.append((passed, gain))
    level = _highest(np.concatenate(at), np.concatenate(costs), budget - fixed - spent)
    return [
        b + np.where(passed <= level, gain, 0).sum(axis=1)
        for b, (passed, gain) in zip(base, gains, strict=True)
    ]


def _widest(ranges: Floats) -> Integers:
    """1 for the first of the widest filters, if any has a range; 0 for the others."""
    found = np.zeros(ranges.shape, dtype=np.int64)
    if ranges.any():
        found[ranges.argmax()] = 1
    return found


def _upgrades(layer: RangedLayer, base: Integers, least_bits: int) -> tuple[Floats, Integers]:
    """The t at which each filter gets more bits, and how many more, both (M, steps)."""
    share = np.cbrt(layer.ranges) ** 2
    live = share > 0
    with np.errstate(divide="ignore"):
        levels = np.log2(share * live.sum() / max(float(share.sum()), np.finfo(float).tiny))
    widths = np.arange(least_bits, layer.most_bits + 1)
    at = np.where(live[:, None], widths - 0.5 - levels[:, None], np.inf)
    gain = np.ones(at.shape, dtype=np.int64)
    gain[:, :1] = least_bits - base[:, None]
    return at, np.where(live[:, None], gain, 0)


def _highest(at: Floats, costs: Floats, budget: float) -> float:
    """The largest t at which all that has been passed fits; −∞ where none does."""
    order = np.argsort(at, kind="stable")
    at, total = at[order], np.cumsum(costs[order])
    # What is passed at the same t is passed together.
    whole = np.append(at[1:] != at[:-1], True)[: at.size] & np.isfinite(at)
    fits = np.flatnonzero(whole & (total <= budget))
    return float(at[fits[-1]]) if fits.size else -np.inf
