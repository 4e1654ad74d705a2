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


def test_the_error_is_that_of_the_mean() -> None:
    """Of means the jackknife of single samples is the standard error itself."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=16), rng.normal(size=16)

    def judged(x: np.ndarray) -> Judged:
        return Judged(float(x.mean()), tuple((x.sum() - x) / 15))

    error = (b - a).std(ddof=1) / 4
    assert judged(a).less_than(judged(b)) == pytest.approx((b - a).mean() / error)
    assert judged(a).less_than(judged(a)) == 0.0
    assert Judged(0.1).less_than(judged(b)) is None
    assert Judged(math.inf, (1.0, 2.0)).less_than(Judged(1.0, (1.0, 2.0))) is None
    assert Judged(0.5, (0.5, 0.5)).less_than(Judged(1.0, (1.0, 1.0))) == math.inf


def test_models_are_judged_on_the_same_images() -> None:
    model = classifier()
    images = set_of(model, rows(40))
    near, far = classifier(1, 0.05), classifier(2, 0.5)
    first, second = judge_outputs(model, [near, far], images)
    assert len(first.without) == len(second.without) == 16
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
    assert found.without == ()
