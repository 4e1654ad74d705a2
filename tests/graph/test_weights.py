"""Stored weights read back: floats, mid-rise and mid-tread codes; what scaling does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.formats.fake_quant import write
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.rewriting import _scaled
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.quantizers import QUANTIZERS
from onnx_esn.passes.layers.costs import measured_view
from tests.passes.tiny import two_convs

DTYPES = [np.float32, np.float16, np.float64]


def read(model):
    constants = Constants(model)
    return [read_weight(x, constants) for x in measured_view(model).layers]


@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_are_read_as_floats(dtype):
    for weight in read(two_convs(dtype=dtype)):
        assert (weight.step, weight.codes, weight.quantizer) == (None, None, "")
        assert (weight.filter_bits == np.dtype(dtype).itemsize * 8).all()


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=lambda q: q.name)
@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_are_read_with_their_steps_and_bits(quantizer, bits, dtype):
    model = two_convs(dtype=dtype)
    layer, W = measured_view(model).layers[0], read(model)[0].W.copy()
    W[3] = 0
    step = quantizer.optimal_step(W, bits).astype(np.float16).astype(float)
    codes = quantizer.encode(W, step, bits)
    weight = read(write(model, layer, codes, step))[0]
    assert weight.quantizer == quantizer.name
    np.testing.assert_array_equal(weight.codes, codes)
    # In float16 a neighbour of the step can give the same values.
    np.testing.assert_allclose(weight.step, step, rtol=np.finfo(dtype).eps)
    assert weight.filter_bits.tolist() == [0 if m == 3 else bits for m in range(8)]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(list(QUANTIZERS.values())),
    st.sampled_from([np.float32, np.float64]),
    st.integers(2, 8),
    st.integers(0, 2**32 - 1),
)
def test_scaling_filters_keeps_their_codes(quantizer, dtype, bits, seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((12, 27))
    step = quantizer.optimal_step(W, bits)
    codes = quantizer.encode(W, step, bits)
    rows = (step[:, None] * codes).astype(dtype)
    scale = np.exp(rng.standard_normal(12))
    scaled = _scaled(rows, scale)
    again = _scaled(scaled, 1 / scale)
    assert scaled.dtype == again.dtype == dtype
    np.testing.assert_allclose(again, rows, rtol=4 * np.finfo(dtype).eps)
    found = quantizer.encode(scaled.astype(float), step * scale, bits)
    np.testing.assert_array_equal(found, codes)
