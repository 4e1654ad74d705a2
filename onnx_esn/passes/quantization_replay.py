"""Carrying out a quantization plan: the same plan on the same model gives the same bytes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnx_esn.errors import PlanError
from onnx_esn.formats.fake_quant import write_into
from onnx_esn.graph.constants import Constants
from onnx_esn.numerics.esn import Integers, filter_bits
from onnx_esn.numerics.midrise import MAX_BITS, encode
from onnx_esn.passes.annotation import strip_annotation
from onnx_esn.passes.base import Skipped, copied
from onnx_esn.passes.quantizable import Job
from onnx_esn.plans import LayerQuantization, QuantizationPlan


def replay(
    model: onnx.ModelProto, jobs: Sequence[Job], skipped: Sequence[Skipped], plan: QuantizationPlan
) -> tuple[onnx.ModelProto, bool, dict[str, Integers]]:
    """Return the quantized copy, whether it differs, and the bits (M,) of each planned layer.

    The bits are those of the largest code: a plan written by hand may grant more than it needs.
    An annotation that the new weights make wrong is removed.

    Raises:
        PlanError: the plan does not fit the model.
    """
    check_plan(plan, jobs, skipped)
    entries = {entry.layer: entry for entry in plan.layers}
    result, modified = copied(model), False
    constants = Constants(result)
    bits: dict[str, Integers] = {}
    for job in jobs:
        entry = entries.get(job.name)
        if entry is not None:
            step = np.where(np.asarray(entry.bits) > 0, entry.step, 0.0)
            codes = encode(job.weight.W, step, entry.bits)
            modified |= write_into(result, constants, job.layers, job.weight, codes, step)
            bits.update({layer.name: filter_bits(codes) for layer in job.layers})
    if modified:
        strip_annotation(result)
    return result, modified, bits


def check_plan(plan: QuantizationPlan, jobs: Sequence[Job], skipped: Sequence[Skipped]) -> None:
    """Raise `PlanError`, naming the layer and what to change, where a plan does not fit a model."""
    of_layer = {layer.name: job for job in jobs for layer in job.layers}
    reasons = {s.node: s.reason for s in skipped}
    entries: dict[str, LayerQuantization] = {}
    for entry in plan.layers:
        if entry.layer in entries:
            raise PlanError(f"the plan names layer {entry.layer!r} twice")
        if entry.layer not in of_layer:
            raise PlanError(_unknown(entry.layer, of_layer, reasons))
        _check_entry(entry, of_layer[entry.layer])
        entries[entry.layer] = entry
    for name, entry in entries.items():
        for other in of_layer[name].layers:
            twin = entries.get(other.name)
            if twin is None or (twin.bits, twin.step) != (entry.bits, entry.step):
                raise PlanError(
                    f"layers {name!r} and {other.name!r} share a weight; the plan must give both "
                    "the same bits and steps"
                )


def _check_entry(entry: LayerQuantization, job: Job) -> None:
    filters = job.weight.W.shape[0]
    for what, values in (("bits", entry.bits), ("step", entry.step)):
        if len(values) != filters:
            raise PlanError(
                f"layer {entry.layer!r} has {filters} filters, but the plan has {len(values)} "
                f"numbers in {what!r}; was it made for another model?"
            )
    for f, (bits, step) in enumerate(zip(entry.bits, entry.step, strict=True)):
        if not 0 <= bits <= MAX_BITS:
            raise PlanError(
                f"layer {entry.layer!r}, filter {f}: bits must be 0 to {MAX_BITS}, not {bits}"
            )
        if bits > 0 and not (step > 0 and np.isfinite(step)):
            raise PlanError(
                f"layer {entry.layer!r}, filter {f}: the step must be above 0, not {step:g}"
            )


def _unknown(name: str, known: Mapping[str, Job], reasons: Mapping[str, str]) -> str:
    if name in reasons:
        return f"the plan names layer {name!r}, which cannot be quantized: {reasons[name]}"
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    hint = f"; close names: {', '.join(close)}" if close else ""
    return f"the plan names layer {name!r}, which the model does not have{hint}"
