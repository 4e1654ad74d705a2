"""All widths and bits of a model decided together, at a few costs: bits, channels, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.passes.allocation.joint import Decision, decide
from onnx_esn.passes.allocation.measuring import Losses
from onnx_esn.passes.analysis.channels import (
    BITS_PER_MAC,
    ChannelAnalysis,
    ChannelLoss,
    layer_parts,
)
from onnx_esn.passes.quantizing.quantizable import Job

_WIDTHS = 128  # of the widest group that are tried
_PLAIN = 1 << 20  # weights of a layer without moments that its bits' loss is taken from


def analyse_model(losses: Losses) -> ChannelAnalysis | None:
    """The whole model: each filter its own bits, against widths at 8 bits, against both.

    None where no layer can be quantized or nothing is known to cost.
    """
    jobs = {x.name: job for job in losses.jobs for x in job.layers}
    layers = [x for x in losses.view.layers if x.name in jobs and x.macs]
    macs = float(sum(x.macs or 0 for x in layers))
    if not macs:
        return None
    losses = replace(losses, bits={**_plain_losses(jobs, losses), **losses.bits})
    # Plain bfloat16 holds 7 bits.
    most = min(jobs[x.name].most_bits for x in layers)
    everything = decide(losses, np.inf, bits=most)
    fixed = everything.cost - most * macs
    sizes = [len(c.curve.order) for c in losses.curves]
    channels, multiple = sum(sizes), max(1, max(sizes, default=0) // _WIDTHS)
    found = []
    for per_mac in BITS_PER_MAC:
        budget = fixed + macs * per_mac
        try:
            quantized = decide(losses, budget, prune_scale=np.inf)
        except BudgetError:
            continue
        best = min(decide(losses, budget, round_to=multiple), quantized, key=lambda x: x.loss)
        pruned = _within(losses, budget, most, multiple)
        left = dict(layer_parts(losses, best.gone))
        macs_left = sum(left[x.name].cost(best.gone.size) for x in layers)
        found.append(
            ChannelLoss(
                per_mac,
                quantized.loss,
                None if pruned is None else pruned.loss + _rounding(losses, pruned),
                None if pruned is None else _share(pruned, channels),
                best.loss,
                _share(best, channels),
                (best.cost - fixed) / macs_left if macs_left else 0.0,
            )
        )
    names = tuple(x.name for x in layers)
    return ChannelAnalysis("", channels, names, MAX_BITS * macs, tuple(found))


def _plain_losses(jobs: Mapping[str, Job], losses: Losses) -> dict[str, Floats]:
    """Losses (M, 9) of layers without moments, by name: once, not for each decision.

    Such layers are huge, or of an odd kind; by their weights alone, of some of the inputs.
    """
    found = {}
    for name, job in jobs.items():
        if name not in losses.bits:
            W = job.weight.W
            _, error = MID_RISE.step_for_all_bits(W[:, :: -(-W.size // _PLAIN)])
            total = float(error[:, 0].sum())
            found[name] = np.asarray(error / total if total > 0 else error)
    return found


def _rounding(losses: Losses, decision: Decision) -> float:
    """What the bits of the filters that are left lose; a decision at given bits leaves it out."""
    lost = 0.0
    for name, bits in decision.bits.items():
        kept = np.flatnonzero(bits > 0)
        lost += float(losses.bits[name][kept, bits[kept]].sum())
    return lost


def _within(losses: Losses, budget: float, bits: int, multiple: int) -> Decision | None:
    try:
        return decide(losses, budget, bits=bits, round_to=multiple)
    except BudgetError:
        return None


def _share(decision: Decision, channels: int) -> float:
    return 1.0 - decision.gone.size / max(channels, 1)
