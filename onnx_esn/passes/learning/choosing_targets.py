"""What a model is taught to come close to: its outputs, and the sums of residual streams."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet, Session, input_specs
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.judged_tensors import judged_tensors
from onnx_esn.numerics.agreement import class_axis, is_classifier, is_probability
from onnx_esn.passes.layerwise.following import reached_tensors
from onnx_esn.passes.learning.training_graph import Kind, Target

STREAM_WEIGHT = 0.5  # of all streams together; each output has 1


def choose_targets(
    reference: onnx.ModelProto, student: onnx.ModelProto, images: CalibrationSet
) -> list[Target]:
    """Targets that both models have, in the same shape.

    Raises:
        InferenceError: a model does not run on the images.
    """
    outputs = judged_tensors(reference)
    theirs = {name for node in student.graph.node for name in node.output}
    wanted = [name for name in outputs if name in theirs]
    mine = set(_sums(student)).difference(outputs)
    streams = [name for name in _sums(reference) if name in mine]
    names = [*wanted, *streams]
    seen = []
    for model in (reference, student):
        fitting = images.for_inputs(input_specs(model))
        batch = next(iter(fitting.take(2).batches(2)))
        seen.append(Session(model, outputs=names).run(batch.feeds))
    a, b = seen
    alike = {n for n in names if a[n].dtype == np.float32 and a[n].shape == b[n].shape}
    same = [name for name in streams if name in alike]
    return [
        *(Target(name, 1.0, _kind(a[name])) for name in wanted if name in alike),
        *(Target(name, STREAM_WEIGHT / len(same), Kind.VALUES, judged=False) for name in same),
    ]


def _kind(output: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Kind:
    if not is_classifier(output):
        # A map of classes has one unit.
        return Kind.CHANNELS if class_axis(output.astype(np.float64)) is None else Kind.VALUES
    rows = output.reshape(output.shape[:2]).astype(np.float64)
    return Kind.PROBABILITIES if is_probability(rows) else Kind.SCORES


def _sums(model: onnx.ModelProto) -> list[str]:
    """Outputs of the Adds of two tensors that depend on the data."""
    reached, constants = reached_tensors(model), Constants(model)
    return [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Add"
        and not captured(node)
        and all(name in reached and name not in constants for name in node.input)
    ]
