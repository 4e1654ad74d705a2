"""What a solver has chosen for a layer, as an entry of a plan that the stored type can hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from onnx_esn.formats.fake_quant import quantized_values
from onnx_esn.graph.number_formats import round_to
from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import Quantizer
from onnx_esn.passes.quantizing.quantizable import Job
from onnx_esn.plans import LayerQuantization, encode_codes

# Why there is no such entry.
BLURRED = "its type cannot hold compensated codes apart"


def settled(
    job: Job,
    entry: LayerQuantization,
    quantizer: Quantizer,
    codes: Floats,
    step: Floats,
    shift: Floats,
) -> LayerQuantization | None:
    """The entry with these codes, in numbers of the stored type; None where that blurs them.

    A filter so weak that the type cannot hold its new codes apart keeps those of the plan.

    Args:
        job: the layer.
        entry: what the plan has for it.
        quantizer: the grid.
        codes: (M, K).
        step: Δ (M,).
        shift: (M,) added to the layer's bias.
    """
    codes, data_type = codes.copy(), job.weight.type
    step = round_to(step, TensorProto.FLOAT if data_type == TensorProto.DOUBLE else data_type)
    blurred = _blurred(job, quantizer, codes, step)
    if blurred.any():
        bits, plain = np.asarray(entry.bits), np.asarray(entry.step)
        step[blurred] = plain[blurred]
        codes[blurred] = quantizer.encode(job.weight.W, plain, bits)[blurred]
        shift = np.where(blurred, 0.0, shift)
        if _blurred(job, quantizer, codes, step).any():
            return None
    bits = filter_bits(codes)
    return LayerQuantization(
        entry.layer,
        tuple(int(b) for b in bits),
        tuple(float(s) for s in np.where(bits > 0, step, 0.0)),
        encode_codes(codes),
        tuple(float(s) for s in shift),
    )


def _blurred(job: Job, quantizer: Quantizer, codes: Floats, step: Floats) -> npt.NDArray[np.bool_]:
    """Which filters (M,) cannot be read back from the stored type."""
    bits = filter_bits(codes)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = quantized_values(job.weight, codes, step)
        finite = np.asarray(np.isfinite(stored).all(axis=1), np.bool_)
        again: Floats = quantizer.encode(np.where(finite[:, None], stored, 0.0), step, bits)
    # What becomes 0 is encoded as half a step above it, but read as what no such grid has.
    same = (again == codes) & ((stored != 0) | (codes == 0))
    return ~(finite & np.asarray(same.all(axis=1), np.bool_))
