"""Bits and steps for the filters of a model: uniform, or by Lagrangian allocation in a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_esn.errors import BudgetError
from onnx_esn.formats.fake_quant import quantized_block
from onnx_esn.graph.layer_weight import Block, StoredWeight
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.numerics.bit_allocation import allocate_bits
from onnx_esn.numerics.esn import Integers, filter_bits
from onnx_esn.numerics.midrise import MAX_BITS, Bools, Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.quantizing.bit_losses import BitLosses, known_enough
from onnx_esn.passes.quantizing.filter_importance import dead_filters
from onnx_esn.passes.quantizing.quantizable import Job

_FEWEST_KNOWN = 3  # bits up to which losses are worked out for every filter
# Smallest normal number, and one that is below the largest.
_NORMAL: dict[int, tuple[float, float]] = {
    TensorProto.FLOAT: (2.0**-126, 2.0**127),
    TensorProto.DOUBLE: (2.0**-1022, 2.0**1023),
    TensorProto.FLOAT16: (2.0**-14, 2.0**15),
    TensorProto.BFLOAT16: (2.0**-126, 2.0**127),
}


@dataclass(frozen=True)
class Choice:
    """Bits (M,) and step Δ (M,) of the filters of one job; both 0 for a pruned filter."""

    bits: Integers
    step: Floats


def uniform_choice(job: Job, bits: int, quantizer: Quantizer = MID_RISE) -> Choice:
    """Give every filter `bits` and the quantizer's step of least squared error.

    A filter that lies on a grid of no more bits already stays on it; a dead one gets 0 bits.
    """
    return given_choice(job, np.full(job.weight.shape[0], bits), quantizer)


def given_choice(job: Job, bits: Integers, quantizer: Quantizer = MID_RISE) -> Choice:
    """Give the filters these bits (M,), dead ones none, and the step of least squared error."""
    wanted = np.where(_dead(job), 0, np.minimum(bits, job.most_bits)).astype(np.int64)
    return _settled(job, wanted, None, quantizer)


def budget_choices(
    jobs: Sequence[Job], budget: float, fixed: float = 0.0, quantizer: Quantizer = MID_RISE
) -> list[Choice]:
    """Spend `budget` (MAC·bit) on the filters of all jobs so that the least distortion remains.

    `fixed` is the part of the budget that layers outside the jobs take whatever is chosen.

    The distortion of a filter at b bits is its part of the layer's distortion
    (`filter_importance`), and layers count alike: in a chain that renormalises, what the layers
    add in noise adds up at the output. The strongest filter of each layer keeps at least the fewest
    bits that the quantizer has codes for, so that no layer falls silent. The MACs of all jobs must
    be known.

    Raises:
        BudgetError: the budget is below what the cheapest choice costs.
    """
    filters = [job.weight.shape[0] for job in jobs]
    of_job = np.repeat(np.arange(len(jobs)), filters)
    macs = np.array([float(job.macs_per_filter or 0) for job in jobs])[of_job]
    cost = macs[:, None] * np.arange(MAX_BITS + 1.0)
    mean = max(budget - fixed, 0.0) / max(float(macs.sum()), 1.0)
    most = int(min(max(np.ceil(mean), _FEWEST_KNOWN), MAX_BITS))
    losses = [BitLosses(job, quantizer, ~_dead(job), most) for job in jobs]

    def distortion(guess: float) -> Floats:
        each = (x.distortion(guess) for x in losses)
        return np.concatenate([np.zeros((0, MAX_BITS + 1)), *each])

    whole = distortion(0.0)[:, 0]
    strongest = np.zeros(of_job.size, dtype=bool)
    for j in range(len(jobs)):
        strongest[np.flatnonzero(of_job == j)[whole[of_job == j].argmax()]] = True
    minimum = strongest * np.int64(quantizer.least_bits)
    least = fixed + float((macs * minimum)[whole > 0].sum())
    if least > budget:
        raise BudgetError(
            f"a cost of {budget:.6g} MAC·bit cannot be reached: the smallest is {least:.6g}, "
            f"{fixed:.6g} of it in layers that are not quantized. Raise the target, prune first "
            "or exclude fewer layers."
        )
    for guess, fill in ((0.0, False), (0.25, True)):
        enough = False
        while not enough:
            bits = allocate_bits(
                distortion(guess), cost, budget - fixed, minimum_bits=minimum, fill=fill
            )
            enough = known_enough(losses, bits)
    choices, first = [], 0
    for job, x in zip(jobs, losses, strict=True):
        b = bits[first : first + len(x.steps)]
        choices.append(_settled(job, b, x.steps[np.arange(len(x.steps)), b], quantizer))
        first += len(x.steps)
    return choices


def _dead(job: Job) -> Bools:
    """Filters (M,) to prune; on a grid only zeros are, so that what is quantized stays as it is."""
    weight = job.weight
    return dead_filters(weight.peak[:, None], job.norm) if weight.step is None else weight.step == 0


def _kept(job: Job, quantizer: Quantizer) -> Floats | None:
    """The steps (M,) that a weight on a grid of this quantizer has already, else None."""
    return job.weight.step if job.weight.quantizer == quantizer.name else None


def _settled(job: Job, bits: Integers, step: Floats | None, quantizer: Quantizer) -> Choice:
    """The choice as its codes really turn out, in numbers of the stored type.

    Args:
        job: the weight.
        bits: (M,) for each filter.
        step: (M,); None: those of least squared error.
        quantizer: whose grid.
    """
    weight, kept = job.weight, _kept(job, quantizer)
    settled, real = np.zeros(weight.shape[0]), np.zeros(weight.shape[0], np.int64)
    for block in weight.blocks():
        rows = block.rows
        wanted = quantizer.optimal_step(block.W, bits[rows]) if step is None else step[rows]
        # A step in the stored type is what an integer format would scale by. In float64 one of
        # float32, so that Δ·W_int is exact: rounding by the arithmetic that reads it would show.
        data_type = TensorProto.FLOAT if weight.type == TensorProto.DOUBLE else weight.type
        rounded = round_to(wanted, data_type)
        wanted = np.where((rounded > 0) & np.isfinite(rounded), rounded, wanted)
        if kept is not None:
            stays = (weight.filter_bits[rows] <= bits[rows]) & (kept[rows] > 0)
            wanted = np.where(stays, kept[rows], wanted)
        real[rows], settled[rows] = _settled_block(weight, block, bits[rows], wanted, quantizer)
    return Choice(real, settled)


def _far_apart(data_type: int, step: Floats, bits: Integers) -> bool:
    """Whether rounding Δ·W_int to a type cannot make another code of any, without trying it.

    It moves a number by half an epsilon of it, here an eighth of a step at most, unless the number
    is too small or too large for the type; and Δ/2 not at all, where the type holds Δ.
    """
    delta, top = step[step > 0], 2.0 ** (bits[step > 0] - 1)
    smallest, large = _NORMAL[data_type]
    if (delta < 2 * smallest).any() or (top * delta > large).any():
        return False
    fine = EPSILON[data_type] * top <= 0.25
    return bool((fine & (round_to(delta, data_type) == delta)).all())


def _settled_block(
    weight: StoredWeight, block: Block, bits: Integers, step: Floats, quantizer: Quantizer
) -> tuple[Integers, Floats]:
    """Bits and steps (m,) with which the codes of some filters can be told apart as stored."""
    W, bits = block.W, bits.copy()
    codes = quantizer.encode(W, step, bits)
    while not _far_apart(weight.type, step, bits):
        # The weakest filters of a float16 layer can be too weak for their codes to stay apart.
        stored = quantized_block(weight, block, codes, step)
        # What becomes 0 is encoded as half a step above it, but read as what no grid of these has.
        gone = (stored == 0) & (codes != 0)
        lost = (gone | (quantizer.encode(stored, step, bits) != codes)).any(axis=1)
        if not lost.any():
            break
        bits[lost] -= 1
        step[lost] = quantizer.optimal_step(W[lost], bits[lost])
        codes[lost] = quantizer.encode(W[lost], step[lost], bits[lost])
    real = filter_bits(codes)
    return real, np.where(real > 0, step, 0.0)
