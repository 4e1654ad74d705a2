"""Random graphs: sliced ≡ masked on every one, or a reason for what was locked on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnx_esn.graph.channel_groups import analyse
from onnx_esn.passes.pruning import Prune, RemoveZeroFilters
from tests.graph.random_graphs import random_model
from tests.net import feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    relative_difference,
    rewrite_or_lock,
    run,
    sizes_of,
)


def check(model, seed, share):
    """Remove a random share of the classes of a random graph."""
    rng = np.random.default_rng(seed)

    def wanted(analysis):
        free = free_classes(analysis)
        return rng.permutation(free)[: int(np.ceil(share * len(free)))]

    assert all(np.isfinite(y).all() for y in run(model, feeds_for(model, sizes_of(model))))
    analysis, removed, rewritten, locks = rewrite_or_lock(model, wanted)
    assert_sliced_is_masked(analysis, removed, rewritten)
    assert all(locks)
    for group in analysis.groups:
        assert group.prunable or group.reason
    return analysis, removed


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from((0.1, 0.5, 0.9)))
def test_random_graphs(seed, share):
    check(random_model(random.Random(seed)), seed, share)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(0, 999), st.sampled_from((0.3, 0.9)))
def test_small_random_graphs(generator, seed, share):
    """The choices are drawn by hypothesis, which prefers few and simple ones and can shrink."""
    check(random_model(generator), seed, share)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_graphs(block):
    removed = 0
    for i in range(100):
        generator = random.Random(1000 * block + i)
        model = random_model(generator)
        removed += check(model, i, generator.choice((0.1, 0.3, 0.5, 0.9)))[1].any()
    assert removed > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_pruning_random_graphs(seed):
    """The whole pass, with absorption: valid, runs, and replays its own plan byte for byte."""
    model = random_model(random.Random(seed))
    result = Prune(ratio=0.5)(model)
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    feeds = feeds_for(model, sizes_of(model))
    for a, b in zip(run(model, feeds), run(result.model, feeds), strict=True):
        assert a.shape == b.shape


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
        if result.modified:
            feeds = feeds_for(model, sizes_of(model))
            difference = relative_difference(run(model, feeds), run(result.model, feeds))
            if not any("on average" in s.reason for s in result.skipped):
                assert difference < 1e-5, seed
                exact += 1
    assert exact > len(seeds) // 10


def test_zero_filters_of_random_graphs():
    check_zero_filters(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(1, 11))
def test_zero_filters_of_many_random_graphs(block):
    check_zero_filters(range(100 * block, 100 * block + 100))
