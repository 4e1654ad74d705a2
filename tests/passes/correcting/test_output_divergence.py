from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.passes.correcting.output_divergence import Judged, judge_outputs, output_divergences
from tests.net import Net
from tests.passes.tiny import graph, weights


def classifier(seed: int = 0, noise: float = 0.0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    W = weights(5, 4)
    return graph(
        [("MatMul", ["x", "W"], ["y"], {})],
        {"x": ["N", 5]},
        {"W": (W + noise * rng.normal(size=W.shape)).astype(np.float32)},
    )


def set_of(model: onnx.ModelProto, x: np.ndarray) -> CalibrationSet:
    return open_set(x, input_specs(model))


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, 5)).astype(np.float32)


def judged(each: np.ndarray) -> Judged:
    return Judged(float(each.mean()), each)


def test_logarithms_are_compared_image_by_image() -> None:
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.normal(size=(2, 16)))
    least = min(a.mean(), b.mean())
    gain = np.log((b + least) / (a + least))
    z = gain.mean() / (gain.std(ddof=1) / 4)
    assert judged(a).less_than(judged(b)) == pytest.approx(z)
    assert judged(1e-7 * a).less_than(judged(1e-7 * b)) == pytest.approx(z)
    assert judged(a).less_than(judged(a)) == 0.0
    twice = judged(np.ones(4)).less_than(judged(np.full(4, 2.0)))
    assert twice == math.inf


def test_what_tells_nothing() -> None:
    some = judged(np.array([1.0, 2.0]))
    assert Judged(0.1).less_than(some) is None
    assert some.less_than(Judged(0.1)) is None
    assert judged(np.array([1.0, math.inf])).less_than(some) is None
    assert judged(np.array([1.0])).less_than(judged(np.array([2.0]))) is None
    silent = judged(np.zeros(5))
    assert silent.less_than(silent) == 0.0


def test_one_image_that_is_exact_does_not_decide() -> None:
    """Its logarithm is minus infinity."""
    one = np.array([0.0, 2.0, 2.2, 1.9, 2.1])
    other = np.array([1e-9, 1.0, 1.0, 1.0, 1.0])
    z = judged(one).less_than(judged(other))
    assert z is not None
    assert z < -1


def test_what_all_small_divergences_have_in_common_is_no_evidence() -> None:
    """A temperature moves all of them together, whichever images are drawn."""
    rng = np.random.default_rng(2)
    large = np.exp(rng.normal(size=8))
    small = 1e-3 * np.exp(rng.normal(size=72))
    one, other = np.concatenate([large, small]), np.concatenate([large[::-1], 3.0 * small])
    z = judged(one).less_than(judged(other))
    assert z is not None
    assert abs(z) < 1


def test_one_image_does_not_hide_what_all_others_say() -> None:
    rng = np.random.default_rng(1)
    worse = np.exp(rng.normal(size=40))
    better = 0.6 * worse * np.exp(0.5 * rng.normal(size=40))
    better[0] = worse[0] + worse.sum()  # so that its mean is larger
    assert better.mean() > worse.mean()
    z = judged(better).less_than(judged(worse))
    assert z is not None
    assert z > 1


def test_models_are_judged_on_the_same_images() -> None:
    model = classifier()
    images = set_of(model, rows(40))
    near, far = classifier(1, 0.05), classifier(2, 0.5)
    first, second = judge_outputs(model, [near, far], images)
    assert first.each is not None
    assert first.each.shape == (40,)
    for i in (0, 17):
        one = images.subset([i])
        assert judge_outputs(model, [model], one)[0].each == pytest.approx([0.0])
    assert output_divergences(model, [near, far], images) == [first.value, second.value]
    z = first.less_than(second)
    assert z is not None
    assert z > 2
    again = second.less_than(first)
    assert again == pytest.approx(-z)


def test_outputs_that_do_not_follow_the_images_tell_no_error() -> None:
    net = Net(3, 4, 4)
    y = net.op("ReduceMean", net.conv("x", 3, 2), axes=[0], keepdims=1)
    model = net.model(y)
    images = set_of(model, np.ones((6, 3, 4, 4), np.float32))
    (found,) = judge_outputs(model, [model], images, batch_size=6)
    assert found.each is None
