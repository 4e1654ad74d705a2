"""The filters of one weight by ACIQ: how many bits, and the grid that holds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from onnx_esn.errors import BudgetError
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.numerics.aciq import clipped_codes, corrected
from onnx_esn.numerics.aciq_allocation import RangedLayer, allocate_by_range
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Bools, decode
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.numerics.shifted_grid import LEAST_PRECISE, ShiftedGrid, as_shifted, shifted_grid
from onnx_esn.passes.quantizing.bit_choice import given_choice
from onnx_esn.passes.quantizing.filter_importance import dead_filters
from onnx_esn.passes.quantizing.quantizable import Job

# Beyond this many steps code and offset do not fit into single precision together.
_FARTHEST = 1 << 10
_TINY = 2.0**-100  # a step near the smallest numbers of single precision has lost digits


def mean_bits(job: Job, bits: int, quantizer: Quantizer = MID_RISE) -> Integers:
    """Return bits (M,) of the filters of a job, at most `bits` in the mean of those not dead."""
    layer, flat = _ranged(job, 1.0)
    each = quantizer.least_bits * flat.astype(np.int64)
    allowed = float(bits * (np.count_nonzero(layer.ranges) + flat.sum()) - each.sum())
    found = allocate_by_range([layer], allowed, least_bits=quantizer.least_bits)[0]
    return np.asarray(found + each)


def budget_bits(
    jobs: Sequence[Job], budget: float, fixed: float = 0.0, quantizer: Quantizer = MID_RISE
) -> list[Integers]:
    """Return bits (M,) of the filters of all jobs, at a cost of at most `budget` in MAC·bit.

    Args:
        jobs: with known MACs.
        budget: in MAC·bit.
        fixed: what other layers take of it.
        quantizer: whose codes the filters get.

    Raises:
        BudgetError: the budget is below what the cheapest choice costs.
    """
    if fixed >= budget and fixed > 0:
        raise BudgetError(
            f"a cost of {budget:,.0f} MAC·bit cannot be reached: what stays as it is costs "
            f"{fixed:,.0f}. Raise the target, or leave fewer layers out."
        )
    ranged = [_ranged(job, float(job.macs_per_filter or 0)) for job in jobs]
    each = [quantizer.least_bits * flat.astype(np.int64) for _, flat in ranged]
    fixed += sum(float((x.cost * b).sum()) for (x, _), b in zip(ranged, each, strict=True))
    found = allocate_by_range(
        [layer for layer, _ in ranged], budget, fixed, least_bits=quantizer.least_bits
    )
    return [np.asarray(a + b) for a, b in zip(found, each, strict=True)]


def _ranged(job: Job, cost: float) -> tuple[RangedLayer, Bools]:
    """The filters for the allocation, and which (M,) take no part, being of equal weights.

    A range is the standard deviation of the weights, as the norm behind scales it. Dead filters
    have none.
    """
    W = job.weight.W
    dead = dead_filters(W, job.norm)
    flat = ~dead & (W.max(axis=1) == W.min(axis=1))
    ranges = np.where(dead | flat, 0.0, W.std(axis=1))
    if job.norm is not None:
        ranges = ranges * np.abs(job.norm.gain)
    return RangedLayer(ranges, np.full(W.shape[0], cost), job.most_bits), flat


def quantized_filters(
    job: Job, bits: Integers, quantizer: Quantizer = MID_RISE
) -> tuple[ShiftedGrid, Integers]:
    """Return the grid of the filters of a job at these bits (M,), and the priors that were chosen.

    Offsets are 0 in types that cannot hold them apart, and where a filter lies so far from 0 that
    single precision cannot. The steps are numbers of the stored type (float32 of float64).
    """
    W, kind = job.weight.W, job.weight.type
    codes, step, priors = clipped_codes(W, bits, quantizer)
    used = priors[(bits > 0) & (step > 0)]
    if EPSILON[kind] > LEAST_PRECISE:
        return _unshifted(job, bits, quantizer), used
    step, shift = corrected(W, codes, step)
    grid = shifted_grid(codes, step, np.where(bits > 0, shift, 0.0))
    plain = (np.abs(grid.offset) > _FARTHEST) | ((grid.step < _TINY) & (bits > 0))
    if plain.any():
        unshifted = _unshifted(job, np.where(plain, bits, 0), MID_RISE)
        other = as_shifted(unshifted.codes, unshifted.step)
        grid = ShiftedGrid(
            np.where(plain, other.step, grid.step),
            np.where(plain[:, None], other.codes, grid.codes),
            np.where(plain, other.offset, grid.offset),
        )
    kind = TensorProto.FLOAT if kind == TensorProto.DOUBLE else kind
    return grid._replace(step=round_to(grid.step, kind)), used


def _unshifted(job: Job, bits: Integers, quantizer: Quantizer) -> ShiftedGrid:
    """Levels around 0 instead of the mean, of which the norm alone is corrected."""
    weight = job.weight
    W, kind = weight.W, weight.type
    codes, step, _ = clipped_codes(W, bits, quantizer, centred=False)
    step = round_to(corrected(W, codes, step)[0], kind)
    stored = round_to(decode(codes, step), kind)
    again = quantizer.encode(stored, step, bits)
    lost = ((again != codes) | ((stored == 0) & (codes != 0))).any(axis=1)
    # Nothing to clip, or too small for the type: the step of least squared error, where one holds.
    lost |= (bits > 0) & ~codes.any(axis=1)
    if lost.any():
        choice = given_choice(job, np.where(lost, bits, 0), quantizer)
        other = quantizer.encode(W, choice.step, choice.bits)
        codes, step = np.where(lost[:, None], other, codes), np.where(lost, choice.step, step)
    return ShiftedGrid(np.where(codes.any(axis=1), step, 0.0), codes, np.zeros(step.shape))
