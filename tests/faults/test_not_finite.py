"""NaN and infinity stop a pass, and the layer that they come from is named."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from onnx import numpy_helper

import onnx_esn
from onnx_esn.errors import OnnxEsnError
from tests.net import Net

X = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)


def net(case=""):
    """Four layers; the broken one is the second, and what is behind it may hide that."""
    n = Net(3, 8, 8)
    clip = [n.store(np.array(v)) for v in (0.0, 6.0)]
    y = n.op("Clip", n.bn(n.conv("x", 3, 8, name="first", bias=False), 8), *clip)
    y = n.conv(y, 8, 8, name="second")
    if case == "hidden":
        y = n.op("Where", n.op("IsNaN", y), n.store(np.array(0.0)), y)
    y = n.relu(n.conv(n.op("Clip", y, *clip), 8, 8, name="third"))
    model = n.model(n.gemm(n.op("Flatten", y), 8 * 64, 5, name="head"))
    for tensor in model.graph.initializer:
        if tensor.name == "second.weight" and case:
            W = numpy_helper.to_array(tensor).copy()
            W[2, 1] = {"nan": np.nan, "infinity": np.inf}.get(case, 3e38)
            tensor.CopyFrom(numpy_helper.from_array(W, tensor.name))
    return model


VERBS = {
    "recalibrate": lambda m: onnx_esn.recalibrate(net(), X, reference=m),
    "prune": lambda m: onnx_esn.prune(m, ratio=0.3, images=X),
    "reconstruct": lambda m: onnx_esn.prune(m, ratio=0.3, criterion="reconstruction", images=X),
    "quantize": lambda m: onnx_esn.quantize(m, bits=3, images=X),
    "nearest": lambda m: onnx_esn.quantize(m, bits=3, method="nearest", images=X),
    "learning": lambda m: onnx_esn.quantize(m, bits=3, method="qil", images=X, epochs=1),
    "compress": lambda m: onnx_esn.compress(m, X, target_cost="10%"),
    "analyze": lambda m: onnx_esn.analyze(m, images=X),
}


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize("case", ["nan", "infinity", "overflow", "hidden"])
def test_the_layer_is_named(verb, case):
    with pytest.raises(OnnxEsnError, match=r"second") as stopped:
        VERBS[verb](net(case))
    assert len(str(stopped.value).splitlines()) == 1
    assert any(word in str(stopped.value) for word in ("NaN", "infinity"))


@pytest.mark.parametrize("case", ["nan", "infinity"])
def test_figures_of_outputs_that_are_no_numbers_are_refused(case):
    for figures in (onnx_esn.evaluate, lambda models, x: onnx_esn.compare(*models, x)):
        with pytest.raises(OnnxEsnError, match=r"'head_out' .* holds NaN.* made by Conv 'second'"):
            figures([net(), net(case)], X)


def test_an_infinity_that_masks_is_not_to_blame():
    """It is there on purpose; the NaN comes from what is made of it."""
    n = Net(4)
    masked = n.op("Add", "x", n.store(np.array([0, -np.inf, 0, 0])), name="mask")
    y = n.op("Mul", masked, n.store(np.zeros(4)), name="culprit")
    model = n.model(y)
    with pytest.raises(OnnxEsnError, match="made by Mul 'culprit'"):
        onnx_esn.evaluate([model, model], np.ones((4, 4), np.float32))


def test_singular_moments_are_damped_and_said_to_be(caplog):
    """Two images of one position each say little about 64 inputs; a dead one says nothing."""
    n = Net(64, 1, 1)
    y = n.relu(n.conv("x", 64, 32, 1, name="few"))
    model = n.model(n.conv(y, 32, 4, 1, name="last"))
    draw = np.random.default_rng(0)
    few = draw.normal(size=(12, 64, 1, 1)).astype(np.float32)
    many = draw.normal(size=(3000, 64, 1, 1)).astype(np.float32)
    dead = many.copy()
    dead[:, 5] = 0.25
    damped = {}
    with caplog.at_level(logging.INFO, "onnx_esn"):
        for name, x in (("few", few), ("many", many), ("dead", dead)):
            result = onnx_esn.quantize(model, bits=3, images=x)
            damped[name] = result.details["damped_layers"]
            for tensor in result.model.graph.initializer:
                assert np.isfinite(numpy_helper.to_array(tensor)).all()
    assert damped == {"few": ["few", "last"], "many": [], "dead": ["few"]}
    assert "few: the moments of its 64 inputs are singular on 12 positions; damped" in caplog.text
