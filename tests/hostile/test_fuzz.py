"""Two thousand damaged models: handled errors, or models that pass the checker.

Every command runs in a fork, within limits of time and memory. A seed names a model for good:
`check(runner, folder, seed)` does one again.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph import test_fuzz as registered
from tests.hostile.mutations import MUTATIONS, flipped, hostile_bytes, mutated
from tests.hostile.runs import Runner
from tests.hostile.verbs import Bench, sound_model
from tests.models import MODELS

assert registered  # with it, all tiny graphs are known

COUNT, SHARDS = 2000, 20
SECONDS, MEGABYTES = 90, 1200  # a declared batch of 65,536 takes its tensors


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("worker")) as started:
        yield started


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


def meet(runner, bench, content, chosen, about):
    """Run some verbs on the bytes of a model."""
    path = bench.folder / "model.onnx"
    path.write_bytes(content)
    commands = bench.commands(path)
    for verb in chosen:
        bench.output.unlink(missing_ok=True)
        ending = runner(*commands[verb], results=[bench.output], seconds=SECONDS)
        told = f"{about}, {verb}: {ending.fault}\n{ending.said[-2000:]}"
        assert not ending.fault, told
        assert ending.kilobytes < MEGABYTES * 1024, told


def check(runner, bench, seed):
    """One damaged model and four verbs, all drawn by the seed."""
    rng = random.Random(seed)
    name = rng.choice(sorted(MODELS))
    content = hostile_bytes(MODELS[name].build(), rng)
    fast, slow = bench.fast(bench.sound), bench.slow(bench.sound)
    chosen = [*rng.sample(sorted(fast), 3), rng.choice(sorted(set(slow) - {"analyze"}))]
    meet(runner, bench, content, chosen, f"seed {seed} ({name})")


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_two_thousand_damaged_models(runner, bench, shard):
    for seed in range(shard, COUNT, SHARDS):
        check(runner, bench, seed)


@pytest.mark.parametrize("seed", [411, 669, 785, 1015, 1308, 1586, 1980])
def test_models_that_were_once_met_badly(runner, bench, seed):
    """Weights beyond float32, groups and equations that do not fit, NaN that signals."""
    check(runner, bench, seed)


@pytest.mark.parametrize("shard", range(4))
def test_some_damaged_models(runner, bench, shard):
    for seed in range(shard, 24, 4):
        check(runner, bench, seed)


@settings(max_examples=20)
@given(
    st.sampled_from(MUTATIONS),
    st.sampled_from(MUTATIONS),
    st.randoms(use_true_random=False),
    st.sampled_from(("inspect", "prune", "fake", "qdq", "qonnx", "spatial", "equalize", "rotate")),
)
def test_structural_mutations(runner, bench, first, second, generator, verb):
    """Mutations and choices drawn by hypothesis, which shrinks what it finds."""
    model = sound_model()
    first(model, generator)
    if model.graph.node:
        second(model, generator)
    about = f"{first.__name__}, {second.__name__}"
    meet(runner, bench, model.SerializeToString(), (verb,), about)


def test_a_seed_names_a_model():
    first, second = (mutated(sound_model(), random.Random(5)) for _ in range(2))
    assert first == second
    content = sound_model().SerializeToString()
    damaged = [flipped(content, random.Random(seed)) for seed in range(20)]
    assert len(set(damaged)) > 15
    assert content not in damaged
