"""The same question for a few inputs of a filter, where what is best is known, or nearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.midrise import Floats, top_code
from onnx_esn.numerics.pruning_or_quantizing import BITS
from onnx_esn.numerics.pruning_or_quantizing.code_bound import code_bound
from onnx_esn.numerics.pruning_or_quantizing.fixed_step import code_error, fixed_step_codes
from onnx_esn.numerics.pruning_or_quantizing.magnitude import decibels, kept_count
from onnx_esn.numerics.pruning_or_quantizing.mask_search import best_mask

SIZE = 16  # inputs of a block: n bits then keep n of them
BLOCKS = 12  # of a layer
_RIDGE = 1e-6  # of the mean of the diagonal, added to it


@dataclass(frozen=True, eq=False)
class Filter:
    """One filter.

    Attributes:
        H: second moments (d, d) of what it reads.
        w: its weights (d,).
        gain: of what stands behind it.
    """

    H: Floats
    w: Floats
    gain: float

    @property
    def energy(self) -> float:
        """Variance of its output."""
        return self.error(np.zeros_like(self.w))

    def error(self, w: Floats) -> float:
        """Variance that other weights change its output by."""
        z = w - self.w
        return float(self.gain**2 * (z @ self.H @ z))


@dataclass(frozen=True)
class BlockSnr:
    """SNR in dB of what blocks of inputs add to the outputs, at one compression.

    Attributes:
        bits: n.
        blocks: how many blocks, of `inputs` inputs each.
        inputs: of a block.
        kept: weights that pruning keeps of a block.
        quantized: rounded at the filter's step.
        quantized_limit: no codes at that step do better (semidefinite bound).
        pruned: with the best mask that was found.
        pruned_limit: no mask does better; equal to `pruned` where the search came to its end.
        solved: blocks where it did.
    """

    bits: int
    blocks: int
    inputs: int
    kept: int
    quantized: float
    quantized_limit: float
    pruned: float
    pruned_limit: float
    solved: int

    @property
    def winner(self) -> str:
        """``quantize`` or ``prune`` where one found beats the other's limit, else ``open``."""
        if self.quantized > self.pruned_limit:
            return "quantize"
        return "prune" if self.pruned > self.quantized_limit else "open"


def analyse_blocks(
    filters: Sequence[Filter], steps: Mapping[int, Floats], rng: np.random.Generator
) -> list[BlockSnr]:
    """Blocks at random places, at all of `BITS`; nothing where none of them has any output.

    Args:
        filters: to draw from.
        steps: of the filters, by bits.
        rng: draws filters and places.
    """
    size = min(SIZE, filters[0].w.size)
    drawn = []
    for _ in range(BLOCKS):
        n = int(rng.integers(len(filters)))
        first = int(rng.integers(filters[n].w.size - size + 1))
        drawn.append((n, first))
    # A layer of few weights does not have that many.
    drawn = sorted(set(drawn)) if size else []
    problems = [(n, *_problem(filters[n], slice(i, i + size))) for n, i in drawn]
    problems = [p for p in problems if p[2].size and p[2] @ p[1] @ p[2] > 0]
    if not problems:
        return []
    return [_at(bits, size, problems, steps[bits]) for bits in BITS]


def _problem(f: Filter, part: slice) -> tuple[Floats, Floats]:
    """P and w of a block, without inputs that are always 0."""
    P = f.gain**2 * f.H[part, part]
    live = P.diagonal() > 1e-300
    P = P[np.ix_(live, live)]
    if P.size:
        P = P + _RIDGE * float(P.diagonal().mean()) * np.eye(len(P))
    return P, f.w[part][live]


def _at(
    bits: int, size: int, problems: Sequence[tuple[int, Floats, Floats]], steps: Floats
) -> BlockSnr:
    kept, top = kept_count(size, bits), float(top_code(bits))
    energy = rounded = floor = pruned = least = 0.0
    solved = 0
    for n, P, w in problems:
        power = float(w @ P @ w)
        energy += power
        step = float(steps[n])
        if step > 0:
            a = w / step
            error = step * step * code_error(P, a, fixed_step_codes(P, a, top))
            rounded += error
            floor += min(step * step * code_bound(P, a, top), error)
        else:  # rounded to zeros
            rounded, floor = rounded + power, floor + power
        if kept < w.size:
            found = best_mask(P, w, kept)
            pruned += found.error
            least += found.bound
            solved += found.bound >= found.error
        else:
            solved += 1
    return BlockSnr(
        bits,
        len(problems),
        size,
        kept,
        decibels(energy, rounded),
        decibels(energy, floor),
        decibels(energy, pruned),
        decibels(energy, least),
        solved,
    )
