"""MACs against a counter of single multiply-accumulates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnx_esn.passes.inspecting.inspection import inspect, total_macs
from tests.oracles import macs as oracle
from tests.passes.tiny import graph, weights

few = settings(max_examples=60, deadline=None)


def macs_of(nodes, inputs, tensors, **kwargs):
    model = graph(nodes, inputs, tensors, **kwargs)
    inspection = inspect(model, groups=False)
    assert not inspection.unresolved
    assert inspection.totals.macs == total_macs(model)
    return inspection.totals.macs


@few
@given(st.data())
def test_conv(data):
    rank = data.draw(st.integers(1, 3))
    axis = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, stride, dilation = data.draw(axis), data.draw(axis), data.draw(axis)
    pads = data.draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    groups = data.draw(st.sampled_from([1, 2]))
    channels, filters = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    top = 9 if rank < 3 else 6
    size = data.draw(st.lists(st.integers(2, top), min_size=rank, max_size=rank))
    pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    for n, (begin, end), k, d in zip(size, pairs, kernel, dilation, strict=True):
        assume(n + begin + end >= (k - 1) * d + 1)
    found = macs_of(
        [
            (
                "Conv",
                ["x", "W"],
                ["y"],
                {"strides": stride, "dilations": dilation, "pads": pads, "group": groups},
            )
        ],
        {"x": ["N", channels, *size]},
        {"W": weights(filters, channels // groups, *kernel)},
    )
    expected = oracle.conv(
        size, channels, filters, kernel, stride=stride, dilation=dilation, pads=pairs, groups=groups
    )
    assert found == expected


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_auto_pad(mode, stride, size):
    found = macs_of(
        [("Conv", ["x", "W"], ["y"], {"auto_pad": mode, "strides": [stride, stride]})],
        {"x": ["N", 2, size, size]},
        {"W": weights(3, 2, 3, 3)},
    )
    positions = math.ceil(size / stride)  # the definition of SAME
    if mode == "VALID":
        positions = len(oracle.window_starts(size, 3, stride, 1))
    assert found == positions**2 * 3 * 2 * 9


@few
@given(
    rank=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    c=st.integers(1, 2),
    m=st.integers(1, 2),
    stride=st.integers(1, 3),
    extra=st.integers(0, 1),
    pad=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_conv_transpose(rank, groups, c, m, stride, extra, pad, seed):
    rng = np.random.default_rng(seed)
    size, kernel = rng.integers(2, 5, rank).tolist(), rng.integers(2, 4, rank).tolist()
    found = macs_of(
        [
            (
                "ConvTranspose",
                ["x", "W"],
                ["y"],
                {
                    "group": groups,
                    "strides": [stride] * rank,
                    "output_padding": [min(extra, stride - 1)] * rank,
                    "pads": [pad] * (2 * rank),
                },
            )
        ],
        {"x": ["N", groups * c, *size]},
        {"W": weights(groups * c, m, *kernel)},
    )
    assert found == oracle.conv_transpose(size, groups * c, groups * m, kernel, groups)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_a, trans_b):
    W = weights(7, 5) if trans_b else weights(5, 7)
    nodes = [("Gemm", ["r", "W"], ["y"], {"transA": trans_a, "transB": trans_b})]
    nodes.insert(0, ("Transpose" if trans_a else "Identity", ["x"], ["r"], {}))
    assert macs_of(nodes, {"x": ["N", 5]}, {"W": W}) == oracle.matmul((1, 5), (5, 7))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_with_the_constant_on_the_left(trans_a, trans_b):
    W = weights(5, 7) if trans_a else weights(7, 5)
    found = macs_of(
        [
            ("Reshape", ["x", "shape"], ["r"], {}),
            ("Gemm", ["W", "r"], ["y"], {"transA": trans_a, "transB": trans_b}),
        ],
        {"x": ["N", 20]},
        {"W": W, "shape": np.array([4, 5] if trans_b else [5, 4])},
    )
    assert found == oracle.matmul((7, 5), (5, 4))


@pytest.mark.parametrize(
    ("x", "w"),
    [((5,), (5, 7)), ((6, 5), (5, 7)), ((2, 6, 5), (5, 7)), ((2, 6, 5), (2, 5, 7))],
)
def test_matmul_weight_on_the_right(x, w):
    found = macs_of([("MatMul", ["x", "W"], ["y"], {})], {"x": ["N", *x]}, {"W": weights(*w)})
    assert found == oracle.matmul((1, *x), w)


@pytest.mark.parametrize(
    ("w", "x"), [((7, 5), (5, 6)), ((7, 5), (2, 5, 6)), ((2, 7, 5), (2, 5, 6))]
)
def test_matmul_weight_on_the_left(w, x):
    found = macs_of([("MatMul", ["W", "x"], ["y"], {})], {"x": ["N", *x]}, {"W": weights(*w)})
    assert found == oracle.matmul(w, (1, *x))


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_macs_are_those_of_one_sample(batch):
    found = macs_of(
        [("Conv", ["x", "W"], ["y"], {})], {"x": [batch, 2, 5, 5]}, {"W": weights(3, 2, 3, 3)}
    )
    assert found == 9 * 3 * 18
