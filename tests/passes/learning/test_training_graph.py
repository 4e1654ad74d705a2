"""On many graphs: the student computes the same, and its gradients are slopes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from onnx_esn.calibration import Session
from onnx_esn.errors import OperationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.layers.costs import view_layers
from onnx_esn.passes.learning.learnable import learnable
from onnx_esn.passes.learning.student import make_student
from onnx_esn.passes.learning.training_graph import Kind, Target, training_graph
from onnx_esn.passes.quantizing.quantizable import find_jobs
from tests.models import MODELS
from tests.net import feeds_for
from tests.oracles.equivalence import sizes_of
from tests.oracles.precision import in_type

STEP = 1e-6
# Slopes need float64. There the reference runtime has no grouped ConvTranspose, computes others
# in float32, and knows neither com.microsoft nor DequantizeLinear of operator set 18; constants may
# stay in float32. Filters of zeros stand at the kink of their Relu: there is no slope.
NO_ORACLE = (
    *("transposed_conv", "transposed_conv_in_groups", "transposed_conv_depthwise"),
    *("fused_activations", "fused_layer_norm", "nhwc_operators", "fused_attention"),
    *("weight_through_dequantize", "weight_through_quantize_and_dequantize"),
    *("quantized_activations", "custom_operator", "local_response_norm"),
    *("activations_quantized_by_channel", "activations_quantized_by_row"),
    *("quantized_residual_stream", "weight_quantized_per_tensor"),
    *("constants_of_every_kind", "sparse_constants"),
)
# How much is found in the data says the shapes of what follows.
UNKNOWN_SHAPES = ("non_maximum_suppression",)


def loss_in_double(graph):
    """The way to the loss alone, in float64."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    last = next(i for i, n in enumerate(model.graph.node) if graph.loss in n.output)
    del model.graph.node[last + 1 :]
    del model.graph.output[1:]
    return ReferenceEvaluator(in_type(model, (TensorProto.FLOAT,), TensorProto.DOUBLE))


def student_of(name):
    model = standard_form(MODELS[name].build())
    jobs, _ = find_jobs(model, view_layers(model, Facts(sizes={}), Constants(model)))
    layers, _ = learnable(model, jobs)
    return model, *make_student(model, list(layers.values()))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_slopes_of_the_loss(name):
    model, student, layers = student_of(name)
    if not layers:
        pytest.skip("it has no layer that can be learned")
    feeds = feeds_for(model, sizes_of(model, 3))
    output = model.graph.output[0].name
    wanted = Session(model).run(feeds)[output]
    if wanted.dtype != np.float32:
        pytest.skip("its output is not float32")
    fed = [n for x in layers.values() for n in x.names]
    target = Target(output, 1.0, Kind.CHANNELS if wanted.ndim > 2 else Kind.VALUES)
    sizes = {k: v.shape for k, v in feeds.items()}
    if name in UNKNOWN_SHAPES:
        with pytest.raises(OperationError, match="is unknown: it cannot be learned"):
            training_graph(student, fed, [target], sizes)
        return
    graph = training_graph(student, fed, [target], sizes)
    session = Session(graph.model)
    rng = np.random.default_rng(0)
    rows = {n: x.rows for n, x in layers.items()}
    shifts = {n: np.zeros(x.layer.filters) for n, x in layers.items()}

    def fed_with(goal):
        given = dict(feeds) | {target.feed: goal}
        for n, x in layers.items():
            given |= x.feeds(rows[n], shifts[n])
        return given

    # As it is, it makes what the model makes.
    assert float(session.run(fed_with(wanted))[graph.loss]) < 1e-9
    goal = (wanted + rng.normal(size=wanted.shape) * np.std(wanted)).astype(np.float32)
    found = session.run(fed_with(goal))
    if name in NO_ORACLE or graph.blocked:  # what is blocked lacks a part of the slope
        return
    exact = loss_in_double(graph)
    given = {
        k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in fed_with(goal).items()
    }

    def slope(fed):
        direction = rng.normal(size=given[fed].shape)
        kept, sides = given[fed], []
        for sign in (1, -1):
            given[fed] = kept + sign * STEP * direction
            sides.append(float(exact.run(None, given)[0]))
        given[fed] = kept
        return (sides[0] - sides[1]) / (2 * STEP), direction

    for x in layers.values():
        for fed_name in x.names:
            if fed_name not in graph.gradients:
                assert graph.blocked or not _reaches(model, x.layer.output, output)
                continue
            wide, direction = slope(fed_name)
            mine = float((found[graph.gradients[fed_name]] * direction).sum())
            size = float(np.abs(found[graph.gradients[fed_name]] * direction).sum())
            assert abs(mine - wide) <= 1e-4 * size + 1e-6


@pytest.mark.parametrize("name", ["chain_with_batchnorm", "residual", "depthwise", "gemm_chain"])
def test_gradients_of_filters_are_those_of_what_is_fed(name):
    """Through the BatchNormalization that is folded, and the layout of the weight."""
    _, _, layers = student_of(name)
    rng = np.random.default_rng(1)
    for x in layers.values():
        rows, shift = x.rows, np.zeros(x.layer.filters)
        G = {k: rng.normal(size=v.shape) for k, v in x.feeds(rows, shift).items()}

        def inner(rows, shift, x=x, G=G):
            fed = x.feeds(rows, shift)
            return sum(float((fed[k].astype(np.float64) * G[k]).sum()) for k in G)

        for array, gradient in zip((rows, shift), x.gradients(G), strict=True):
            direction = rng.normal(size=array.shape)
            sides = []
            for sign in (1, -1):  # linear: a wide step will do
                array += sign * direction
                sides.append(inner(rows, shift))
                array -= sign * direction
            slope = (sides[0] - sides[1]) / 2
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-4)


def _reaches(model, tensor, output):
    found = {tensor}
    for node in model.graph.node:
        if any(name in found for name in node.input):
            found.update(node.output)
    return output in found
