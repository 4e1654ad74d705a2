"""Scales of activations while they are learned."""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.learning.activation_scales import ActivationScales


def test_scales_stay_above_zero_and_finite():
    x = ActivationScales(np.array([0.5, 2.0]))
    assert x.parameters["scale"] is x.scale
    np.testing.assert_array_equal(x.scales["scale"], [0.5, 2.0])
    x.scale[:] = [-1.0, 1e9]
    x.settle()
    np.testing.assert_array_equal(x.scale, [0.5 / 64, 128.0])
    np.testing.assert_array_equal(x.scales["scale"], [0.5, 2.0])
