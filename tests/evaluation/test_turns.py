"""Large models are loaded one after the other; what is found is the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import onnx_esn
from onnx_esn.evaluation import turns
from onnx_esn.evaluation.difference import compare
from onnx_esn.graph.model_file import save_model
from tests.net import Net


class Counted(turns.Session):
    """Sessions that count how many of them have the weights laid out."""

    alive = most = 0

    def __init__(self, *args, lean=False, **options):
        super().__init__(*args, lean=lean, **options)
        self.counts = not lean
        if self.counts:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

    def __del__(self):
        Counted.alive -= getattr(self, "counts", False)


@pytest.fixture
def models(tmp_path):
    net = Net(3, 8, 8)
    y = net.conv_bn_relu("x", 3, 8)
    model = net.model(net.head(net.conv_bn_relu(y, 8, 6), 6))
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    save_model(model, paths[0])
    save_model(onnx_esn.quantize(model, bits=3).model, paths[1])
    return paths


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def one_by_one(monkeypatch):
    def start(held=1 << 28):
        Counted.alive = Counted.most = 0
        monkeypatch.setattr(turns, "LARGE", 0)
        monkeypatch.setattr(turns, "_HELD", held)
        monkeypatch.setattr(turns, "Session", Counted)

    return start


@pytest.mark.parametrize("held", [1 << 28, 0], ids=["in memory", "in files"])
def test_compare(models, images, one_by_one, held):
    expected = compare(*models, images, batch_size=3)
    one_by_one(held)
    done = []
    found = compare(*models, images, batch_size=3, progress=lambda *step: done.append(step))
    assert found == expected
    assert Counted.most == 1
    assert done == [(what, n, 7) for what in ("outputs", "layers") for n in (3, 6, 7)]


def test_evaluate(models, images, one_by_one):
    labels = np.arange(7) % 3
    expected = onnx_esn.evaluate(list(models), images, labels=labels, latency=False, batch_size=3)
    one_by_one()
    found = onnx_esn.evaluate(list(models), images, labels=labels, batch_size=3)
    assert Counted.most == 1
    timed = [x.latency for x in found.models]
    assert timed[0].ratio == 1
    assert timed[1].ratio == timed[1].median_ms / timed[0].median_ms
    bare = tuple(dataclasses.replace(x, latency=None) for x in found.models)
    assert dataclasses.replace(found, models=bare, latency_batch=None) == expected
