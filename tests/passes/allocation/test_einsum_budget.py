"""Budgets of models whose layers only shapes show."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_esn
from tests.net import Net


def mixed():
    """A convolution, a product written as Einsum, a convolution."""
    net = Net(3, 10, 15, seed=3)
    x = net.op("Relu", net.conv("x", 3, 16))
    x = net.op("Einsum", x, net.weight(16, 20, fan_in=16), equation="bchw,cd->bdhw")
    return net.model(net.conv(net.op("Relu", x), 20, 6, k=1))


@pytest.mark.parametrize("percent", [30, 10])
def test_a_product_written_as_einsum_has_its_share(percent):
    model = mixed()
    images = np.random.default_rng(0).normal(size=(12, 3, 10, 15)).astype(np.float32)
    before = onnx_esn.inspect(model).totals.esn_prime
    small = onnx_esn.quantize(model, target_cost=f"{percent}%", images=images).model
    found = onnx_esn.inspect(small)
    assert found.totals.esn_prime <= percent / 100 * before
    assert all(max(layer.filter_bits) <= 8 for layer in found.layers)
    whole = onnx_esn.compress(model, images, target_cost=f"{percent}%", latency=False).model
    assert onnx_esn.inspect(whole).totals.esn_prime <= percent / 100 * before
