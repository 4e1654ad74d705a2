"""The real exported models, where they are at hand: sliced ≡ masked on each of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_esn.graph.bodies import restored
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.pruning.prune import Prune
from tests.net import feeds_for
from tests.oracles.equivalence import (
    free_classes,
    relative_difference,
    rewrite_or_lock,
    run,
)
from tests.oracles.masked import masked_model

ASSETS = Path(__file__).parents[2] / "shared" / "assets"
MODELS = sorted((ASSETS / "models").glob("*.onnx"))
ZOO = sorted((ASSETS / "zoo").glob("*.onnx"))
pytestmark = pytest.mark.skipif(not MODELS, reason="the shared assets are not here")


def input_shapes(path):
    """Sizes to run a zoo model at, from its index."""
    index = path.parent / "index.jsonl"
    if not index.exists():
        return {}
    lines = (json.loads(line) for line in index.read_text().splitlines())
    return next((x["input_shapes"] for x in lines if x["name"] == path.stem), {})


def tolerance(model):
    """Half precision rounds; a quantized activation may jump to the neighbouring step."""
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    steps = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return 2e-2 if half or steps else 1e-4


def check(path, ratios):
    model = onnx.load(path)
    shapes = input_shapes(path)
    rng = np.random.default_rng(0)
    for ratio in ratios:

        def wanted(analysis, ratio=ratio):
            free = free_classes(analysis)
            return rng.permutation(free)[: int(ratio * len(free))]

        analysis, removed, rewritten, _ = rewrite_or_lock(model, wanted)
        sliced = restored(rewritten.model)
        onnx.checker.check_model(sliced, full_check=True)
        feeds = feeds_for(model, {**analysis.facts.sizes, **shapes})
        masked = masked_model(analysis, removed)
        difference = relative_difference(run(masked, feeds), run(sliced, feeds))
        assert difference < tolerance(model)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_sliced_is_masked_on_real_models(path):
    check(path, (0.5,))


@pytest.mark.slow
@pytest.mark.parametrize("path", [*MODELS, *ZOO], ids=lambda p: p.stem)
def test_sliced_is_masked_on_the_zoo(path):
    check(path, (0.1, 0.5, 0.9))


@pytest.mark.slow
@pytest.mark.parametrize("path", [*MODELS, *ZOO], ids=lambda p: p.stem)
def test_prune_the_zoo(path):
    """The whole pass: valid, counted right, replayed byte for byte."""
    model = onnx.load(path)
    result = Prune(ratio=0.5)(model)
    onnx.checker.check_model(result.model, full_check=True)
    macs = sum(x.macs or 0 for x in analyse(result.model).layers)
    assert macs == result.details["macs_after"]
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
