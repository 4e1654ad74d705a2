"""Models with Quant nodes are pruned, and refused for quantizing, like others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_esn
from onnx_esn.errors import OptionError
from onnx_esn.formats.qonnx import write
from onnx_esn.formats.qonnx_folding import folded
from tests.models import stem
from tests.net import Net, feeds_for
from tests.oracles.equivalence import free_classes, relative_difference, rewrite_or_lock, run
from tests.oracles.masked import masked_model


def net():
    """Conv → depthwise → grouped ConvTranspose → residual → Gemm."""
    n = Net(3, 6, 6, ir=10)
    y = stem(n)
    y = n.relu(n.conv(y, 8, 8, group=8, name="depthwise"))
    y = n.relu(n.deconv(y, 8, 12, group=2))
    z = n.conv_bn_relu(y, 12, 12, name="b")
    return n.model(n.head(n.op("Add", y, z), 12))


@pytest.fixture(params=["uniform", "mixed", "mid-tread"])
def pair(request):
    """The fake model, and the same with Quant nodes."""
    options = {
        "uniform": {"bits": 3},
        "mixed": {"target_cost": "10%"},
        "mid-tread": {"bits": 4, "quantizer": "mid-tread"},
    }[request.param]
    fake = onnx_esn.quantize(net(), **options).model
    return fake, write(fake).model


@pytest.mark.parametrize("seed", range(4))
def test_sliced_is_masked(pair, seed):
    rng = np.random.default_rng(seed)
    _, model = pair

    def wanted(analysis):
        free = free_classes(analysis)
        return rng.permutation(free)[: len(free) // 2]

    analysis, removed, rewritten, _ = rewrite_or_lock(model, wanted)
    assert removed.any()
    onnx.checker.check_model(rewritten.model, full_check=True)
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)}, seed)
    masked, sliced = (folded(m) for m in (masked_model(analysis, removed), rewritten.model))
    assert relative_difference(run(masked, feeds), run(sliced, feeds)) <= 1e-5


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_pruning_is_that_of_the_fake_model(pair, ratio):
    a, b = (onnx_esn.prune(model, ratio=ratio).model for model in pair)
    feeds = feeds_for(a, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(a, feeds), run(folded(b), feeds)) == 0.0
    of_a, of_b = (onnx_esn.inspect(m) for m in (a, b))
    assert [(x.macs, x.filter_bits, x.esn_prime) for x in of_a.layers] == [
        (x.macs, x.filter_bits, x.esn_prime) for x in of_b.layers
    ]
    stored = {t.name: numpy_helper.to_array(t) for t in b.graph.initializer}
    for quant in (n for n in b.graph.node if n.op_type == "Quant"):
        x, scale = (stored[name] for name in quant.input[:2])
        assert np.broadcast_shapes(x.shape, scale.shape) == x.shape


def test_quantizing_again_is_refused(pair):
    with pytest.raises(OptionError, match="quantized already"):
        onnx_esn.quantize(pair[1], bits=2)


def test_quantizing_again_on_request_is_that_of_the_fake_model():
    fake = onnx_esn.quantize(net(), bits=4).model
    again = onnx_esn.quantize(write(fake).model, bits=2, requantize=True).model
    feeds = feeds_for(fake, {"x": (2, 3, 6, 6)})
    expected = onnx_esn.quantize(fake, bits=2).model
    assert relative_difference(run(expected, feeds), run(folded(again), feeds)) == 0.0
