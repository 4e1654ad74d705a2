"""Which layers of a model can be learned, and why the others cannot."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import TensorProto

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.following import bias_problem, find_plain_layers, reached_tensors
from onnx_esn.passes.quantizing.quantizable import Job


def learnable(
    model: onnx.ModelProto, jobs: Collection[Job]
) -> tuple[dict[str, Layer], list[Skipped]]:
    """Layers of these jobs, by name in graph order, and why the others cannot be learned."""
    of_layer = {layer.name: job for job in jobs for layer in job.layers}
    reached, constants = reached_tensors(model), Constants(model)
    found: dict[str, Layer] = {}
    skipped: list[Skipped] = []
    for layer in find_plain_layers(model):
        job = of_layer.get(layer.name)
        if job is None:
            continue
        reason = _reason(model, layer, job, reached, constants)
        if reason:
            skipped.append(Skipped(layer.name, f"not learned: {reason}"))
        else:
            found[layer.name] = layer
    return found, skipped


def _reason(
    model: onnx.ModelProto, layer: Layer, job: Job, reached: set[str], constants: Constants
) -> str:
    if len(job.layers) > 1:
        return "its weight is shared by several layers"
    if job.weight.read_type != TensorProto.FLOAT:
        return f"it works in {job.weight.type_name}, gradients in float32"
    if layer.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return f"no gradient of {layer.op} is known"
    if not any(name in reached for name in model.graph.node[layer.index].input):
        return "its input is constant"
    return bias_problem(layer, constants)
