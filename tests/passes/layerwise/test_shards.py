"""Sums over shards have the same bytes wherever the shards are summed, and are kept once."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.errors import InferenceError
from onnx_esn.passes.layerwise import shards
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.passes.layerwise.observation import Observation, observe
from onnx_esn.passes.layerwise.shards import ShardSums, ShardTask
from onnx_esn.passes.layerwise.statistics import WalkOptions
from tests.models import MODELS
from tests.passes.layerwise.samples import some_images


def arrays(seen: Observation) -> list[Any]:
    """All that was seen, in a fixed order."""
    found: list[Any] = []
    for name, taken in sorted(seen.taken.items()):
        found += [name, taken.places, *taken.at]
        for tensor, rows in sorted(taken.outputs.items()):
            found += [tensor, *rows]
    for name, parts in sorted(seen.parts.items()):
        for half in parts:
            found += [name, half.count, half.x_mean, half.y_mean, half.xx, half.yx, half.yy]
    return found


def assert_same(one: Observation, other: Observation) -> None:
    mine, theirs = arrays(one), arrays(other)
    assert len(mine) == len(theirs) > 10
    for a, b in zip(mine, theirs, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.array_equal(a, b)


class Workers:
    """Sums each shard with a task of its own, as another process would, the last shard first."""

    def __init__(self) -> None:
        self.shards: list[range] = []

    def __call__(
        self, task: ShardTask, images: CalibrationSet, cut: list[range]
    ) -> Iterator[ShardSums]:
        self.shards += cut
        sent = pickle.dumps(task)
        found = {s: pickle.loads(sent)(images.subset(s), s.start) for s in reversed(cut)}
        return iter([pickle.loads(pickle.dumps(found[s])) for s in cut])


MODEL_NAMES = ("residual", "grouped_in_two", "fixed_batch_of_three")


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_wherever_they_are_summed(
    name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)
    model = MODELS[name].build()
    images = some_images(model, 11)
    names = [node.name for node in model.graph.node]
    options = WalkOptions(batch_size=batch_size)
    here = observe(model, images, names, options)
    workers = Workers()
    there = observe(model, images, names, WalkOptions(batch_size=batch_size, spread=workers))
    assert_same(here, there)
    step = 6 if images.fixed_batch else 4
    assert workers.shards == [range(i, min(i + step, 11)) for i in range(0, 11, step)]


def test_shards_do_not_depend_on_the_batch() -> None:
    model = MODELS["residual"].build()
    images = some_images(model, 200)
    assert shards.cut(images, {}, inputs=True) == [
        range(0, 64), range(64, 128), range(128, 192), range(192, 200)
    ]  # fmt: skip


def test_what_takes_much_memory_is_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)
    model = MODELS["residual"].build()
    images = some_images(model, 11)
    whole = observe(model, images, ["c"], WalkOptions())
    monkeypatch.setattr(shards, "MOST_BYTES", 100)
    workers = Workers()
    one = observe(model, images, ["c"], WalkOptions(spread=workers))
    assert workers.shards == []
    np.testing.assert_allclose(one.parts["c"][0].xx, whole.parts["c"][0].xx, rtol=1e-4, atol=1e-4)
    observe(model, images, ["c"], WalkOptions(spread=workers), inputs=False)
    assert len(workers.shards) == 3, "without inputs there is little to hold"


def test_progress_counts_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)
    model, told = MODELS["residual"].build(), []
    options = WalkOptions(batch_size=3, progress=lambda *x: told.append(x))
    observe(model, some_images(model, 9), ["c"], options)
    assert told == [("reference", n, 9) for n in (3, 4, 7, 8, 9)]


def test_what_is_not_finite_is_told_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)
    model = MODELS["residual"].build()
    (batch,) = some_images(model, 9).batches(9)
    (array,) = batch.feeds.values()
    array[6] = 3e38
    with pytest.raises(InferenceError, match=r"holds .* from sample 6\b"):
        observe(model, open_set(array, input_specs(model)), ["c"], WalkOptions())


class TestKnown:
    def look(self, model: onnx.ModelProto, known: Known, count: int = 7, **how: Any) -> Observation:
        images = some_images(model, count)
        return observe(model, images, ["c"], WalkOptions(known=known), **how)

    def test_the_same_is_observed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, known = MODELS["residual"].build(), Known()
        known.is_of(model)
        first = self.look(model, known)
        assert len(known) == 1
        monkeypatch.setattr("onnx_esn.passes.layerwise.observation.one_by_one", None)
        again = self.look(model, known)
        assert_same(first, again)
        assert again.parts["c"][0].xx is not first.parts["c"][0].xx, "sums are added to in place"
        sent = pickle.loads(pickle.dumps(known))
        assert_same(first, self.look(model, sent))

    def test_something_else_is_not_taken_for_it(self) -> None:
        model, known = MODELS["residual"].build(), Known()
        known.is_of(model)
        self.look(model, known)
        self.look(model, known, count=6)
        self.look(model, known, inputs=False)
        assert len(known) == 3

    def test_other_models_are_not_kept(self) -> None:
        model, known = MODELS["residual"].build(), Known()
        self.look(model, known)
        known.is_of(MODELS["grouped_in_two"].build())
        self.look(model, known)
        assert len(known) == 0
