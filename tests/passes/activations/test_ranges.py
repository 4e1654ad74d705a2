"""Ranges by onnxruntime's calibrators, against the tensors themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.calibration import Session, input_specs, open_set
from onnx_esn.calibration.ranges import CALIBRATORS, tensor_ranges
from onnx_esn.errors import InferenceError, ModelError, OptionError
from onnx_esn.passes.activations.quantizing import quantize_activations
from tests.passes.tiny import graph, two_convs, weights

TENSORS = ["x", "c", "d", "e", "y"]


def images(n=11):
    return weights(n, 3, 6, 6, seed=5)


def opened(model, array):
    return open_set(array, input_specs(model))


def values(model, names, x):
    return Session(model, outputs=names).run({"x": x})


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_minmax_finds_the_extremes(batch_size):
    model = two_convs()
    found = tensor_ranges(model, TENSORS, opened(model, images()), batch_size=batch_size)
    assert list(found) == TENSORS
    for name, value in values(model, TENSORS, images()).items():
        np.testing.assert_allclose(found[name], (value.min(), value.max()), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("calibrator", ["entropy", "percentile"])
def test_histograms_stay_within_the_extremes(calibrator, batch_size):
    model = two_convs()
    data = opened(model, images())
    found = tensor_ranges(model, TENSORS, data, calibrator=calibrator, batch_size=batch_size)
    for name, value in values(model, TENSORS, images()).items():
        low, high = found[name]
        slack = 1e-5 * np.abs(value).max()
        assert value.min() - slack <= low < high <= value.max() + slack


@pytest.mark.parametrize("percentile", [80.0, 95.0, 99.0])
def test_a_percentile_leaves_out_as_much(percentile):
    """Half of the rest on either side, up to the width of a bin (2048 over twice the peak)."""
    model = two_convs()
    x = images(64)
    data = opened(model, x)
    found = tensor_ranges(
        model, TENSORS, data, calibrator="percentile", percentile=percentile, batch_size=64
    )
    for name, value in values(model, TENSORS, x).items():
        tail = (100 - percentile) / 2
        low, high = np.percentile(value, [tail, 100 - tail])
        gap = 3 * 2 * np.abs(value).max() / 2048 + np.ptp(np.sort(value, axis=None)[:2])
        assert abs(found[name][0] - low) <= gap + 0.02 * np.ptp(value)
        assert abs(found[name][1] - high) <= gap + 0.02 * np.ptp(value)


def test_the_padding_of_a_fixed_batch_does_not_widen():
    model = two_convs(batch=4)
    found = tensor_ranges(model, ["x"], opened(model, images(5)))
    assert found["x"] == pytest.approx((images(5).min(), images(5).max()))


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_tensor_of_zeros_has_no_width(calibrator):
    model = graph(
        [("Mul", ["x", "zero"], ["z"], {}), ("Add", ["z", "x"], ["y"], {})],
        {"x": ["N", 3]},
        {"zero": np.zeros(1, np.float32)},
    )
    data = opened(model, np.abs(weights(8, 3)))
    assert tensor_ranges(model, ["z"], data, calibrator=calibrator) == {"z": (0.0, 0.0)}


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_names_that_look_like_its_own_and_silence(calibrator, capsys):
    """The calibrators add tensors by suffix, and print."""
    nodes = [
        ("Relu", ["x"], ["a_ReduceMin"], {}),
        ("Neg", ["a_ReduceMin"], ["a_b_c"], {}),
        ("Neg", ["a_b_c"], ["y"], {}),
    ]
    model = graph(nodes, {"x": ["N", 3]}, {})
    x = weights(32, 3)
    found = tensor_ranges(model, ["a_ReduceMin", "a_b_c"], opened(model, x), calibrator=calibrator)
    assert found["a_ReduceMin"][0] == 0
    assert found["a_b_c"][1] == 0
    assert capsys.readouterr().out == ""


def test_nothing_asked_for_runs_nothing():
    model = two_convs()
    assert tensor_ranges(model, [], opened(model, images())) == {}


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_an_infinity_is_an_error(calibrator):
    model = graph([("Reciprocal", ["x"], ["y"], {})], {"x": ["N", 3]}, {})
    data = opened(model, np.zeros((8, 3), np.float32))
    with pytest.raises(InferenceError, match=r"'y' holds|calibrator failed"):
        tensor_ranges(model, ["y"], data, calibrator=calibrator)


def test_wrong_options_are_refused():
    model = two_convs()
    data = opened(model, images())
    with pytest.raises(OptionError, match="minmax, entropy, percentile"):
        tensor_ranges(model, ["x"], data, calibrator="guess")
    with pytest.raises(OptionError, match="does not go with"):
        tensor_ranges(model, ["x"], data, percentile=99.0)
    for percentile in (50.0, 100.5):
        with pytest.raises(OptionError, match="above 50"):
            tensor_ranges(model, ["x"], data, calibrator="percentile", percentile=percentile)
    with pytest.raises(ModelError, match="no tensor named 'nowhere'"):
        tensor_ranges(model, ["nowhere"], data)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_each_calibrator_makes_a_model_that_agrees(calibrator):
    model = two_convs()
    result = quantize_activations(model, images(64), kind="uint8", calibrator=calibrator)
    assert result.details["calibrator"] == calibrator
    a, b = (Session(m).run({"x": images()})["y"] for m in (model, result.model))
    assert np.square(a - b).sum() < 3e-3 * np.square(a).sum()
