"""The levels of a Quant are those of the grid: all codes of all bits, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.formats.qonnx_forms import quant_form
from onnx_esn.graph.quant_operators import evaluate_quant
from onnx_esn.numerics.quantizers import QUANTIZERS
from tests.oracles.quant import ROUND, naive_quant

STEPS = np.array([1.0, 0.1, 3e-5, 7.7e3, 1.9999999, 1e-30], np.float32).astype(np.float64)
GRIDS = [("mid-rise", True, b) for b in range(1, 9)]
GRIDS += [("mid-rise", False, b) for b in range(1, 9)]
GRIDS += [("mid-tread", True, b) for b in range(2, 9)]


def grid(quantizer, bits):
    """All codes of a number of bits."""
    top = float(QUANTIZERS[quantizer].top_code(bits))
    return np.arange(-top, top + 1)


def run(form, x):
    column = (len(form.scale), 1)
    operands = (form.scale.reshape(column), form.zero_point.reshape(column), np.array(form.bits))
    inputs = [np.asarray(x, np.float32), *(np.asarray(v, np.float32) for v in operands)]
    return evaluate_quant("Quant", {"signed": form.signed, "narrow": form.signed}, inputs)


@pytest.mark.parametrize(("quantizer", "zero_points", "bits"), GRIDS)
def test_every_code_is_its_own_level_at_every_step(quantizer, zero_points, bits):
    codes = np.tile(grid(quantizer, bits), (len(STEPS), 1))
    W = (STEPS[:, None] * codes).astype(np.float32)
    form = quant_form(codes, STEPS, quantizer, zero_points=zero_points)
    np.testing.assert_array_equal(run(form, W), W)
    for m in range(len(STEPS)):
        s, z = float(form.scale[m]), float(form.zero_point[m])
        for w in W[m]:
            naive = naive_quant(float(w), s, z, form.bits, signed=form.signed, narrow=form.signed)
            assert np.float32(naive) == w


@pytest.mark.parametrize(("quantizer", "zero_points", "bits"), GRIDS)
def test_there_are_no_other_levels(quantizer, zero_points, bits):
    """Numbers between and beyond the levels go to the levels, of which there are 2^b or 2^b − 1."""
    codes = grid(quantizer, bits)[None]
    form = quant_form(codes, np.ones(1), quantizer, zero_points=zero_points)
    reached = np.unique(run(form, np.arange(-300, 300, 0.01)[None]))
    if quantizer == "mid-rise" and not zero_points and bits > 1:
        # The odd ones among the levels of a bit more.
        assert form.bits == bits + 1
        assert len(reached) == 2 ** (bits + 1) - 1
        reached = reached[np.abs(reached * 2) % 2 == 1]
    else:
        assert form.bits == bits
    np.testing.assert_array_equal(reached, codes[0])


@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize("widest", range(1, 9))
def test_narrower_filters_and_filters_of_zeros_share_the_width(widest, zero_points):
    steps = np.linspace(0.1, 1, widest + 1).astype(np.float32).astype(np.float64)
    codes = np.zeros((widest + 1, 2**widest))
    for b in range(1, widest + 1):
        codes[b] = np.resize(grid("mid-rise", b), 2**widest)
    steps[0] = 0.0
    form = quant_form(codes, steps, "mid-rise", zero_points=zero_points)
    W = (steps[:, None] * codes).astype(np.float32)
    np.testing.assert_array_equal(run(form, W), W)
    assert form.bits == (widest if zero_points else widest + 1)
    assert (form.zero_point != 0).any() == zero_points


def test_filters_of_zeros_stay_zero_on_mid_tread():
    codes = np.array([[0.0, 0, 0], [1, 0, -3]])
    form = quant_form(codes, np.array([0.0, 0.5]), "mid-tread")
    assert (form.bits, form.signed) == (3, True)
    np.testing.assert_array_equal(
        run(form, [[0, 0, 0], [0.5, 0, -1.5]]), [[0, 0, 0], [0.5, 0, -1.5]]
    )


@settings(deadline=None)
@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 3.0, 7.5]),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(ROUND)),
)
def test_quant_is_what_its_definition_says(x, scale, zero, bits, signed, narrow, mode):
    """Exact in single precision, but for x: powers of two, and short zero points."""
    x = [round(v * 64) / 64 for v in x]
    attrs = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": mode}
    inputs = [np.asarray(v, np.float32) for v in (x, scale, zero, bits)]
    got = evaluate_quant("Quant", attrs, inputs)
    assert got.dtype == np.float32
    want = [naive_quant(v, scale, zero, bits, signed=signed, narrow=narrow, mode=mode) for v in x]
    np.testing.assert_array_equal(got, np.asarray(want, np.float32))


def test_bipolar_quant_takes_the_sign():
    got = evaluate_quant("BipolarQuant", {}, [np.array([-0.1, 0.0, 7.0]), np.float32(0.5)])
    np.testing.assert_array_equal(got, [-0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("attrs", "count", "why"),
    [({"rounding_mode": "NEAREST"}, 4, "rounding mode"), ({}, 3, "missing")],
)
def test_what_is_no_quant_is_refused(attrs, count, why):
    with pytest.raises(ValueError, match=why):
        evaluate_quant("Quant", attrs, [np.ones(1, np.float32)] * count)
