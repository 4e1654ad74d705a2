"""Bits per layer from a policy: which weights it speaks of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from onnx_esn.errors import PlanError
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.quantizing.bit_choice import Choice, given_choice
from onnx_esn.passes.quantizing.quantizable import Job
from onnx_esn.plans.bit_policy import BitPolicy


def policy_choices(
    jobs: Sequence[Job],
    skipped: Sequence[Skipped],
    policy: BitPolicy,
    quantizer: Quantizer = MID_RISE,
) -> tuple[list[Job], list[Choice], list[Skipped]]:
    """Return the jobs that a policy names, what they get, and what is skipped.

    A layer goes by the name of its node or of its weight.

    Raises:
        PlanError: the policy names a layer that there is not, or gives one too few bits.
    """
    known = {name for job in jobs for layer in job.layers for name in _names(layer)}
    known |= {s.node for s in skipped}
    for entry in policy.layers:
        if entry.layer not in known:
            close = difflib.get_close_matches(entry.layer, sorted(known), n=3, cutoff=0.4)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise PlanError(
                f"the policy names layer {entry.layer!r}, which cannot be quantized or is not in "
                f"the model{hint}"
            )
        if entry.bits < quantizer.least_bits:
            raise PlanError(
                f"the policy gives layer {entry.layer!r} {entry.bits} bit, which leaves the "
                f"{quantizer.name} quantizer nothing but zeros"
            )
    kept, choices, notes = [], [], list(skipped)
    for job in jobs:
        bits = policy.bits_of([name for layer in job.layers for name in _names(layer)])
        if bits is None:
            notes += [Skipped(x.name, "the policy does not name it") for x in job.layers]
        else:
            kept.append(job)
            wanted = np.full(job.weight.W.shape[0], bits, dtype=np.int64)
            choices.append(given_choice(job, wanted, quantizer))
    return kept, choices, notes


def _names(layer: Layer) -> tuple[str, ...]:
    return layer.name, layer.source, layer.weight
