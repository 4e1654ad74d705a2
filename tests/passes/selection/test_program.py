"""The program of a model: worth and costs against the model that is left."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_esn.graph.bodies import restored
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.rewrite.rewriting import RewriteError, rewrite
from onnx_esn.passes.pruning.macs import MacCounter
from onnx_esn.passes.selection.program import find_program
from onnx_esn.passes.selection.targets import Targets
from onnx_esn.plans.latency_model import LatencyModel, LayerLatency
from tests.models import MODELS
from tests.oracles.equivalence import legal_removal
from tests.passes.selection.oracle import objective

PLAIN = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
MOST = 0.4


def random_removal(analysis, seed):
    """Per class, whether it goes; what the graph cannot do without stays."""
    rng = np.random.default_rng(seed)
    free = rng.permutation(np.flatnonzero(~analysis.classes.locked))
    return legal_removal(analysis, free[: int(MOST * free.size)])


def latency_of(analysis):
    rng = np.random.default_rng(0)
    return LatencyModel(
        {x.name: LayerLatency(*rng.uniform(0.1, 1, 4).tolist()) for x in analysis.layers}, 0.5
    )


def choice(analysis, program, removed: Mask):
    assert not np.delete(removed, program.free).any()
    return ~removed[program.free]


def program_and_choice(name, seed=0):
    analysis = analyse(MODELS[name].build())
    targets = Targets("50%", "50%", "50%", "50%", latency_of(analysis))
    program = find_program(analysis, targets)
    removed = random_removal(analysis, seed)
    holds = np.zeros(len(analysis.classes), bool)
    holds[program.free] = True
    removed &= holds  # classes without a filter are no part of the program
    return analysis, program, removed


@pytest.mark.parametrize("name", MODELS)
def test_the_objective_is_that_of_the_weights(name):
    analysis, program, removed = program_and_choice(name)
    layers = [x for x in analysis.layers if x.index in analysis.first_labels]
    if any(x.op not in PLAIN or len(x.weight_shape) != 2 + len(x.kernel) for x in layers):
        pytest.skip("has layers that the oracle does not know")
    labels = analysis.propagation.labels
    for x in layers:
        node = analysis.model.graph.node[x.index]
        read = labels.get(node.input[0] if x.kernel else node.input[1 - x.slot])
        if read is not None and read.size != x.channels_in:
            pytest.skip("labels along another axis")
    everything = np.zeros_like(removed)
    for gone in (everything, removed):
        expected, counted = objective(analysis, analysis.removed_labels(gone))
        assert counted == len(layers)
        found = program.instance.objective(choice(analysis, program, gone))
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_costs_are_those_of_the_model_that_is_left(name):
    analysis, program, removed = program_and_choice(name, seed=1)
    labels = analysis.removed_labels(removed)
    try:
        rewritten = rewrite(analysis, labels)
    except RewriteError:
        pytest.skip("this choice cannot be written")
    x = choice(analysis, program, removed)
    costs = dict(
        zip(("macs", "params", "memory", "latency"), program.instance.budgets, strict=True)
    )
    macs = MacCounter(analysis)(labels)
    assert macs <= costs["macs"].cost(x) * (1 + 1e-9)
    assert costs["macs"].cost(x) <= macs + len(analysis.layers)  # each is rounded down
    after = analyse(restored(rewritten.model), shapes=dict(analysis.facts.sizes))
    kept = {z.name: z for z in after.layers}
    if set(kept) != {z.name for z in analysis.layers}:
        pytest.skip("layers go with their channels")
    stored = {z.source: z.parameters for z in kept.values()}
    if len(stored) == len({z.source for z in analysis.layers}):
        assert costs["params"].cost(x) == pytest.approx(sum(stored.values()))
    batch = next((s[0] for s in after.facts.sizes.values() if len(s) > 1), 1)
    if all(z.output_shape for z in kept.values()):
        elements = sum(math.prod(z.output_shape) for z in kept.values()) / batch
        assert costs["memory"].cost(x) == pytest.approx(elements)
    model = latency_of(analysis)
    seconds = model.rest + sum(
        model.layers[z.name].seconds(z.channels_in, z.filters) for z in kept.values()
    )
    assert costs["latency"].cost(x) == pytest.approx(1e3 * seconds)


def test_round_to_and_min_width_are_widths_of_layers():
    analysis = analyse(MODELS["chain"].build())
    program = find_program(analysis, Targets("50%"), round_to=4, min_width=3)
    steps = [w for w in program.instance.widths if w.step == 4]
    assert len(steps) == sum(1 for g in analysis.groups if g.prunable for _ in g.members)
    assert {w.least for w in steps} == {3.0}


def test_measured_outputs_scale_the_filters_of_layers_without_norm():
    analysis = analyse(MODELS["chain"].build())
    layers = [x for x in analysis.layers if x.index in analysis.first_labels]
    rng = np.random.default_rng(0)
    variances = {x.output: rng.uniform(0.5, 2, x.filters) for x in layers}
    program = find_program(analysis, Targets("50%"), variances=variances)
    expected = 0.0
    for x in layers:
        W = np.abs(x.as_filters(analysis.constants.value(x.weight)).astype(np.float64))
        W *= (np.sqrt(variances[x.output]) / W.sum(axis=1))[:, None]
        taps = math.prod(x.kernel)
        matrix = W.reshape(x.filters, -1, taps).sum(axis=2)
        expected += matrix.sum() / np.linalg.norm(matrix)
    everything = np.ones(program.free.size, bool)
    assert program.instance.objective(everything) == pytest.approx(expected, rel=1e-6)
