"""Pruning slices what is behind a Quant, and passes Quant nodes on activations."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

import onnx_esn
from onnx_esn.formats.qonnx import write
from onnx_esn.formats.qonnx_folding import folded
from onnx_esn.graph import metadata
from tests.models import stem
from tests.net import Net, feeds_for
from tests.oracles.equivalence import free_classes, relative_difference, rewrite_or_lock, run
from tests.oracles.masked import masked_model
from tests.oracles.quant import expanded

QONNX = "qonnx.custom_op.general"


@pytest.mark.parametrize("ir", [8, 10])
def test_quant_nodes_stay_and_lose_their_scales(ir):
    net = Net(3, 6, 6, ir=ir)
    y = net.relu(net.conv(stem(net), 8, 8, group=8))
    y = net.relu(net.deconv(y, 8, 12, group=2))
    model = onnx_esn.quantize(net.model(net.head(y, 12)), target_cost="10%").model
    pruned = onnx_esn.prune(write(model).model, ratio=0.5).model
    stored = {t.name: numpy_helper.to_array(t) for t in pruned.graph.initializer}
    quants = [n for n in pruned.graph.node if n.op_type == "Quant"]
    assert len(quants) == 4
    for quant in quants:
        x, scale = (stored[name] for name in quant.input[:2])
        assert np.broadcast_shapes(x.shape, scale.shape) == x.shape
        assert "quant_bits" not in metadata.read(quant)  # those of the filters that were there
    assert "quant_bits" not in metadata.read(pruned)
    fake = onnx_esn.prune(model, ratio=0.5).model
    feeds = feeds_for(fake, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(fake, feeds), run(folded(pruned), feeds)) == 0.0


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantized_activations_pass_channels(per_channel):
    net = Net(3, 6, 6, ir=10)
    net.domains[QONNX] = 1
    y = stem(net)
    scale = (
        net.vector(1, 8, 1, 1, low=0.01, high=0.02) if per_channel else net.store(np.array(0.01))
    )
    operands = (net.store(np.array(v)) for v in (0.0, 8.0))
    attrs = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}
    y = net.op("Quant", y, scale, *operands, domain=QONNX, **attrs)
    net.declare(y, "N", 8, 6, 6)
    model = net.model(net.head(net.conv(y, 8, 8, name="b"), 8))
    rng = np.random.default_rng(0)

    def wanted(analysis):
        free = free_classes(analysis)
        return rng.permutation(free)[: len(free) // 2]

    analysis, removed, rewritten, locks = rewrite_or_lock(model, wanted)
    assert not locks
    assert removed.any()
    assert {g.name for g in analysis.groups if g.prunable} >= {"a", "b"} & {
        g.name for g in analysis.groups
    }
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    masked, sliced = (expanded(m) for m in (masked_model(analysis, removed), rewritten.model))
    assert relative_difference(run(masked, feeds), run(sliced, feeds)) <= 1e-5
