"""Channel moments of tensors over a calibration set."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_esn.calibration import CalibrationSet, Session, iterate_outputs
from onnx_esn.numerics.moments import Moments, channel_moments


def measure_channels(
    model: onnx.ModelProto, tensors: Mapping[str, int], images: CalibrationSet, batch_size: int
) -> dict[str, Moments]:
    """Moments of each channel of the named tensors, by name; those inside bodies are left out.

    Args:
        model: the model the tensors belong to.
        tensors: channel axis by tensor name.
        images: what to run.
        batch_size: images at a time.
    """
    made = {name for node in model.graph.node for name in node.output}
    tensors = {name: axis for name, axis in tensors.items() if name in made}
    if not tensors:
        return {}
    session = Session(model, outputs=list(tensors))
    found: dict[str, Moments] = {}
    for batch in iterate_outputs(session, images.for_inputs(session.inputs), batch_size):
        for name, axis in tensors.items():
            moments = channel_moments(batch[name], axis % batch[name].ndim)
            found[name] = found[name].merge(moments) if name in found else moments
    return found
