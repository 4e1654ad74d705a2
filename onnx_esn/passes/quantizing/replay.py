"""Carrying out a quantization plan: the same plan on the same model gives the same bytes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnx_esn.errors import PlanError
from onnx_esn.formats.fake_quant import quantized_block
from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layer_weight import Block
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.numerics.esn import Integers, filter_bits
from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import QUANTIZERS, Quantizer
from onnx_esn.numerics.shifted_grid import LEAST_PRECISE, PARTS, ShiftedGrid, shifted_values
from onnx_esn.passes.annotation import strip_annotation
from onnx_esn.passes.base import Skipped, copied
from onnx_esn.passes.quantizing.quantizable import Job
from onnx_esn.passes.quantizing.shifting import shift_outputs
from onnx_esn.plans import LayerQuantization, QuantizationPlan, decode_codes


def replay(
    model: onnx.ModelProto, jobs: Sequence[Job], skipped: Sequence[Skipped], plan: QuantizationPlan
) -> tuple[onnx.ModelProto, bool, dict[str, Integers]]:
    """Return the quantized copy, whether it differs, and the bits (M,) of each planned layer.

    The bits are those of the largest code, as `inspect` finds them in the result: a plan written by
    hand may grant more than it needs.
    Codes that an entry carries are written as they are, and its biases added. An annotation that
    the new weights make wrong is removed.

    Raises:
        PlanError: the plan does not fit the model.
    """
    check_plan(plan, jobs, skipped)
    quantizer = QUANTIZERS[plan.quantizer]
    entries = {entry.layer: entry for entry in plan.layers}
    result, modified = copied(model), False
    writer = WeightWriter(result, Constants(result))
    bits: dict[str, Integers] = {}
    for job in jobs:
        entry = entries.get(job.name)
        if entry is not None:
            changed, found = _write(writer, job, entry, quantizer)
            modified |= changed
            bits.update({layer.name: found for layer in job.layers})
    shifts = {x.layer: np.asarray(x.bias) for x in plan.layers if x.bias is not None}
    if any(shift.any() for shift in shifts.values()):
        result, modified = shift_outputs(result, shifts), True
    if modified:
        strip_annotation(result)
    return result, modified, bits


def check_plan(plan: QuantizationPlan, jobs: Sequence[Job], skipped: Sequence[Skipped]) -> None:
    """Raise `PlanError`, naming the layer and what to change, where a plan does not fit a model."""
    if plan.quantizer not in QUANTIZERS:
        known = ", ".join(QUANTIZERS)
        raise PlanError(f"the plan's quantizer {plan.quantizer!r} is not known; there are: {known}")
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
            if twin is None or _weights(twin) != _weights(entry):
                raise PlanError(
                    f"layers {name!r} and {other.name!r} share a weight; the plan must give both "
                    "the same bits, steps and codes"
                )


def _check_entry(entry: LayerQuantization, job: Job) -> None:
    filters = job.weight.shape[0]
    bias = entry.bits if entry.bias is None else entry.bias
    offset = entry.bits if entry.offset is None else entry.offset
    numbers = (("bits", entry.bits), ("step", entry.step), ("bias", bias), ("offset", offset))
    for what, values in numbers:
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
    if any(o * PARTS != round(o * PARTS) for o in offset):
        raise PlanError(f"layer {entry.layer!r}: offsets must be multiples of 1/{PARTS}")
    if any(offset) and entry.offset is not None and EPSILON[job.weight.type] > LEAST_PRECISE:
        raise PlanError(
            f"layer {entry.layer!r}: {job.weight.type_name} weights cannot hold offsets; leave "
            "them out, or quantize a float32 model"
        )
    _given_codes(entry, job)


def _weights(entry: LayerQuantization) -> tuple[object, ...]:
    """What an entry says about the layer's weights."""
    return entry.bits, entry.step, entry.codes, entry.offset


def _write(
    writer: WeightWriter,
    job: Job,
    entry: LayerQuantization,
    quantizer: Quantizer,
) -> tuple[bool, Integers]:
    """Write one weight, a few filters at a time; whether it changed, and its bits (M,) as read."""
    weight, granted = job.weight, np.asarray(entry.bits)
    step = np.where(granted > 0, entry.step, 0.0)
    given, offset = _given_codes(entry, job), np.asarray(entry.offset or 0.0)
    peak, odd = np.zeros(weight.shape[0]), True

    def values(block: Block) -> Floats:
        nonlocal odd
        rows = block.rows
        if given is None:
            codes = quantizer.encode(block.W, step[rows], granted[rows])
        else:
            codes = given[rows]
        peak[rows] = np.abs(codes).max(axis=1, initial=0.0)
        odd = odd and _all_odd(codes[peak[rows] > 0])
        if offset.any():
            grid = ShiftedGrid(step[rows], codes, offset[rows])
            return round_to(shifted_values(grid), weight.type)
        return quantized_block(weight, block, codes, step[rows])

    changed = writer.write_blocks(job.layers, weight, values)
    # As `detect_grid` reads them: a layer of odd integers alone is mid-rise.
    return changed, filter_bits((peak / 2.0 if odd else peak)[:, None])


def _all_odd(codes: Floats) -> bool:
    """Whether all codes (m, K) are odd integers; one column tells of most layers."""
    return bool((codes[:, :1] % 2.0 == 1.0).all()) and bool((codes % 2.0 == 1.0).all())


def _given_codes(entry: LayerQuantization, job: Job) -> Floats | None:
    """The codes (M, K) that an entry carries, None if none; checked against shape and bits."""
    if entry.codes is None:
        return None
    try:
        codes = decode_codes(entry.codes, job.weight.shape)
    except PlanError as error:
        raise PlanError(f"layer {entry.layer!r}: {error}") from error
    odd = (2.0 * codes) % 2.0
    mixed = (odd != odd[:, :1]).any(axis=1)
    if mixed.any():
        raise PlanError(
            f"layer {entry.layer!r}, filter {mixed.argmax()}: its codes are on no grid, "
            "neither all half-integers nor all integers"
        )
    needed = filter_bits(codes)
    beyond = needed > np.asarray(entry.bits)
    if beyond.any():
        f = int(beyond.argmax())
        raise PlanError(
            f"layer {entry.layer!r}, filter {f}: its codes take {needed[f]} bits, "
            f"and the plan gives it {entry.bits[f]}"
        )
    return codes


def _unknown(name: str, known: Mapping[str, Job], reasons: Mapping[str, str]) -> str:
    if name in reasons:
        return f"the plan names layer {name!r}, which cannot be quantized: {reasons[name]}"
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    hint = f"; close names: {', '.join(close)}" if close else ""
    return f"the plan names layer {name!r}, which the model does not have{hint}"
