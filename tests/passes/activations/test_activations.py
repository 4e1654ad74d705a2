"""Quantized activations: the weights keep their grid."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_esn.passes.activations.quantizing import quantize_activations
from onnx_esn.passes.inspecting.inspection import inspect
from tests.passes.activations.runs import fake, images, read_back, run, snr
from tests.passes.tiny import two_convs


@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_on_a_grid_stay_bit_for_bit(bits, quantizer):
    if (bits, quantizer) in ((8, "mid-rise"), (1, "mid-tread")):
        pytest.skip("does not fit int8, or does not exist")
    model = fake(two_convs(norm=False), bits, quantizer=quantizer)
    result = quantize_activations(model, images(), kind="uint8")
    for name, tensor in (("Conv_0", "W1"), ("Conv_3", "W2"), ("Gemm_6", "W3")):
        was = next(t for t in model.graph.initializer if t.name == tensor)
        value, codes = read_back(result.model, name)
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(value, numpy_helper.to_array(was))
    assert not result.skipped
    assert not result.details["rounded_filters"]


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", [2, 4, 7])
def test_inspect_counts_the_same_bits_and_macs(bits, quantizer, kind):
    model = fake(two_convs(), bits, quantizer=quantizer)
    result = quantize_activations(model, images(), kind=kind)
    before, after = inspect(model), inspect(result.model)
    assert [x.name for x in after.layers] == [x.name for x in before.layers]
    assert [x.macs for x in after.layers] == [x.macs for x in before.layers]
    assert [x.filter_bits for x in after.layers] == [x.filter_bits for x in before.layers]
    assert after.totals.esn_prime == before.totals.esn_prime


@pytest.mark.parametrize("bits", [3, 7])
def test_a_batchnorm_goes_into_steps_and_signs(bits):
    """γ of either sign and 0: the magnitudes of the integers are those of the fake model."""
    model = two_convs()
    gamma = np.array([0.7, -0.7, 0.0, 1.3, -0.2, 1.0, 0.5, -1.1], np.float32)
    next(t for t in model.graph.initializer if t.name == "gamma").CopyFrom(
        numpy_helper.from_array(gamma, "gamma")
    )
    model = fake(model, bits)
    result = quantize_activations(model, images(), kind="int16")
    assert "BatchNormalization" not in {n.op_type for n in result.model.graph.node}
    assert result.details["folded_norms"] == 1
    value, codes = read_back(result.model, "Conv_0")
    tensors = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    gain = tensors["gamma"] / np.sqrt(tensors["var"] + 1e-5)
    np.testing.assert_allclose(value, tensors["W1"] * gain[:, None, None, None], rtol=3e-7)
    W = tensors["W1"].reshape(8, -1)
    for row, w, g in zip(codes.reshape(8, -1), W, gain, strict=True):
        if g == 0:
            assert not row.any()
        else:
            assert (np.abs(row) / np.gcd.reduce(row) % 2 == 1).all()
            ratio = np.abs(row) / np.abs(w)
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
            np.testing.assert_array_equal(np.sign(row), np.sign(w) * np.sign(g))
    assert snr(run(model, images()), run(result.model, images())) > 60


def test_eight_bit_mid_rise_is_rounded_and_said_so():
    model = fake(two_convs(norm=False), 8)
    result = quantize_activations(model, images(), kind="uint8")
    noted = {s.node: s.reason for s in result.skipped}
    assert set(noted) == {"Conv_0", "Conv_3", "Gemm_6"}
    assert all("do not fit int8" in reason for reason in noted.values())
    assert result.details["rounded_filters"] == {"Conv_0": 8, "Conv_3": 8, "Gemm_6": 4}
    was = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "W1"))
    value, codes = read_back(result.model, "Conv_0")
    assert np.abs(codes).max() <= 127
    error = np.abs(value - was).reshape(8, -1)
    peak = np.abs(was).reshape(8, -1).max(axis=1)
    assert (error.max(axis=1) <= peak / 64 * 0.5001).all()


def test_rounding_eight_bits_takes_the_step_of_least_squared_error():
    """At the usual step peak/127 odd codes are all but ties, which go towards zero together."""
    model = fake(two_convs(norm=False, seed=3), 8)
    result = quantize_activations(model, images(), kind="uint8")
    for name, tensor, M in (("Conv_0", "W1", 8), ("Conv_3", "W2", 8), ("Gemm_6", "W3", 4)):
        was = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == tensor))
        value, _ = read_back(result.model, name)
        W, found = (w.reshape(M, -1).astype(np.float64) for w in (was, value))
        step = np.abs(W).max(axis=1, keepdims=True) / 127
        usual = np.rint(W / step) * step
        error, before = (np.square(x - W).sum(axis=1) for x in (found, usual))
        assert (error <= before * (1 + 1e-5)).all()
        assert error.sum() < 0.9 * before.sum()


def test_sixteen_bits_keep_eight_bit_mid_rise():
    model = fake(two_convs(norm=False), 8)
    result = quantize_activations(model, images(), kind="int16")
    assert not result.skipped
    was = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "W1"))
    value, codes = read_back(result.model, "Conv_0")
    assert codes.dtype == np.int16
    np.testing.assert_array_equal(value, was)
    (opset,) = [o.version for o in result.model.opset_import if o.domain == ""]
    assert opset == 21


def test_weights_on_no_grid_are_rounded_and_said_so():
    result = quantize_activations(two_convs(), images(), kind="uint8")
    assert {s.node for s in result.skipped} == {"Conv_0", "Conv_3", "Gemm_6"}
    assert all("on no grid" in s.reason for s in result.skipped)


def test_a_pruned_filter_gives_its_bias():
    model = fake(two_convs(norm=False), 4)
    tensor = next(t for t in model.graph.initializer if t.name == "W3")
    W = numpy_helper.to_array(tensor).copy()
    W[2] = 0
    tensor.CopyFrom(numpy_helper.from_array(W, "W3"))
    result = quantize_activations(model, images(), kind="uint8")
    bias = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "bias"))
    (y,) = run(result.model, images())
    np.testing.assert_allclose(y[:, 2], bias[2], rtol=1e-6)


@pytest.mark.parametrize(("tiny", "bits"), [(1e-8, None), (1e-9, None), (1e-14, 0)])
def test_a_bias_too_large_for_32_bits_takes_a_larger_step(tiny, bits):
    """A filter that says nearly nothing beside its bias: the layer stays integer and right."""
    model = fake(two_convs(norm=False), 4)
    tensor = next(t for t in model.graph.initializer if t.name == "W3")
    W = numpy_helper.to_array(tensor).copy()
    W[1] *= np.float32(tiny)
    tensor.CopyFrom(numpy_helper.from_array(W, "W3"))
    result = quantize_activations(model, images(), kind="uint8")
    assert result.details["rounded_filters"] == {"Gemm_6": 1}
    assert [s.node for s in result.skipped] == ["Gemm_6"]
    assert "beside their biases" in result.skipped[0].reason
    before, after = (inspect(m).layers[-1] for m in (model, result.model))
    assert after.filter_bits[0] == before.filter_bits[0]
    assert after.filter_bits[2:] == before.filter_bits[2:]
    assert 0 <= after.filter_bits[1] <= before.filter_bits[1]
    if bits is not None:
        assert after.filter_bits[1] == bits
    reference, found = run(model, images())[0], run(result.model, images())[0]
    np.testing.assert_allclose(found[:, 1], reference[:, 1], rtol=1e-6)
    assert snr([reference], [found]) > 30
