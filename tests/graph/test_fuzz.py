"""Random graphs: sliced ≡ masked on every one, or a reason for what was locked on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_esn.passes.pruning import Prune
from tests.graph.random_graphs import random_model
from tests.net import feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
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
