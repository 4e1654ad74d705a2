"""Random graphs: sliced ≡ masked on every one, or a reason for what was locked on the way."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_esn
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from tests.graph.random_graphs import random_model, sizes_of_run
from tests.net import feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    difference,
    free_classes,
    rewrite_or_lock,
    run,
    tolerance,
)


def check(model, seed, share):
    """Remove a random share of the classes of a random graph."""
    rng = np.random.default_rng(seed)

    def wanted(analysis):
        free = free_classes(analysis)
        return rng.permutation(free)[: int(np.ceil(share * len(free)))]

    sizes = [sizes_of_run(model, k) for k in (0, 1)]
    assert all(np.isfinite(y).all() for y in run(model, feeds_for(model, sizes[0])))
    analysis, removed, rewritten, locks = rewrite_or_lock(model, wanted, shapes=sizes[0])
    worst = assert_sliced_is_masked(analysis, removed, rewritten, sizes=sizes)
    assert all(locks)
    for group in analysis.groups:
        assert group.prunable or group.reason
    return worst, removed.any()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from((0.1, 0.5, 0.9)))
def test_random_graphs(seed, share):
    check(random_model(random.Random(seed)), seed, share)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(0, 999), st.sampled_from((0.3, 0.9)))
def test_small_random_graphs(generator, seed, share):
    """The choices are drawn by hypothesis, which prefers few and simple ones and can shrink."""
    check(random_model(generator), seed, share)


def test_every_rule_is_drawn():
    drawn = {n.op_type for seed in range(400) for n in random_model(random.Random(seed)).graph.node}
    assert len(drawn) > 70
    assert {"If", "Loop", "Einsum", "GatherND", "FusedConv", "DequantizeLinear"} <= drawn


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_random_graphs(block):
    removed = 0
    for i in range(100):
        generator = random.Random(1000 * block + i)
        model = random_model(generator)
        removed += check(model, i, generator.choice((0.1, 0.3, 0.5, 0.9)))[1]
    assert removed > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_larger_random_graphs(seed):
    generator = random.Random(f"larger {seed}")
    check(random_model(generator, most=60), seed, generator.choice((0.1, 0.5, 0.9)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_pruning_random_graphs(seed):
    """The whole pass, with absorption: valid, runs, and replays its own plan byte for byte."""
    model = random_model(random.Random(seed))
    result = Prune(ratio=0.5)(model)
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    for k in (0, 1):
        feeds = feeds_for(model, sizes_of_run(model, k))
        for a, b in zip(run(model, feeds), run(result.model, feeds), strict=True):
            assert a.shape == b.shape


def check_verbs(seed):
    """As a user calls them: each result is valid and runs. Pruning has to guess dynamic sizes."""
    model = random_model(random.Random(seed))
    before = model.SerializeToString()
    sizes = [sizes_of_run(model, k) for k in (0, 1)]
    pruned = onnx_esn.prune(model, ratio=0.5).model
    quantized = onnx_esn.quantize(pruned, bits=4, input_shape=sizes[0], requantize=True).model
    annotated = onnx_esn.annotate(quantized, input_shape=sizes[0]).model
    onnx_esn.inspect(annotated, input_shape=sizes[0])
    for made in (pruned, quantized, annotated):
        onnx.checker.check_model(made, full_check=True)
        for size in sizes:
            feeds = feeds_for(model, size)
            for a, b in zip(run(model, feeds), run(made, feeds), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert model.SerializeToString() == before


def test_verbs_on_random_graphs():
    for seed in range(12):
        check_verbs(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 300))
def test_verbs_on_many_random_graphs(seed):
    check_verbs(seed)


def silenced(seed):
    """A random graph with some filters set to zero."""
    model, rng = random_model(random.Random(seed)), np.random.default_rng(seed)
    stored = {t.name: t for t in model.graph.initializer}
    for layer in analyse(model).layers:
        if layer.weight in stored and rng.random() < 0.7:
            tensor = stored[layer.weight]
            W = numpy_helper.to_array(tensor)
            rows = layer.as_filters(W).copy()
            rows[rng.random(len(rows)) < 0.4] = 0
            tensor.CopyFrom(numpy_helper.from_array(layer.from_filters(rows), layer.weight))
    return model


def check_zero_filters(seeds):
    """Zero filters go without a trace, or are said to be right on average only."""
    exact = 0
    for seed in seeds:
        model = silenced(seed)
        result = RemoveZeroFilters()(model)
        if result.modified and not any("on average" in s.reason for s in result.skipped):
            found = difference(model, result.model, sizes_of_run(model), seed)
            # What goes into the biases is rounded to their type.
            assert found <= 10 * tolerance(model), seed
            exact += 1
    assert exact > len(seeds) // 10


def test_zero_filters_of_random_graphs():
    check_zero_filters(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(1, 11))
def test_zero_filters_of_many_random_graphs(block):
    check_zero_filters(range(100 * block, 100 * block + 100))
