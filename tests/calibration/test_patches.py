from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_esn.calibration.patches import Window, choose_positions, patches_at, rows_at

Array = npt.NDArray[Any]


def run(op: str, x: Array, W: Array, attrs: dict[str, Any]) -> Array:
    """What onnxruntime makes of a layer without bias."""
    node = helper.make_node(op, ["x", "W"], ["y"], **attrs)
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape)
        for n, v in (("x", x), ("W", W))
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "g", infos, [out]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x, "W": W})
    return np.asarray(y)


def filters(op: str, W: Array, groups: int) -> Array:
    """Weights (G, m, d), each filter's in the order (channel, taps): loops, to be sure."""
    taps = math.prod(W.shape[2:])
    if op == "Conv":
        m, c = W.shape[0] // groups, W.shape[1]
    else:
        m, c = W.shape[1], W.shape[0] // groups
    out = np.zeros((groups, m, c * taps))
    for g, i, j in itertools.product(range(groups), range(m), range(c)):
        kernel = W[g * m + i, j] if op == "Conv" else W[g * c + j, i]
        out[g, i, j * taps : (j + 1) * taps] = kernel.reshape(-1)
    return out


# channels, filters, input, kernel, and what differs from the default.
CONVS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1-D": (3, 4, (9,), (3,), {}),
    "1-D strided": (2, 4, (11,), (4,), {"strides": [3], "pads": [2, 1]}),
    "2-D": (3, 5, (6, 7), (3, 3), {"pads": [1, 1, 1, 1]}),
    "pointwise": (3, 5, (6, 7), (1, 1), {}),
    "asymmetric": (2, 3, (7, 6), (3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    "dilated": (2, 3, (9, 8), (3, 2), {"dilations": [2, 3], "pads": [2, 3, 1, 0]}),
    "stride beyond kernel": (2, 3, (9, 8), (1, 2), {"strides": [3, 4]}),
    "grouped": (6, 4, (5, 5), (3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": (4, 4, (5, 6), (3, 3), {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "depthwise, two each": (3, 6, (5, 6), (3, 3), {"group": 3}),
    "3-D": (2, 3, (4, 5, 6), (2, 3, 3), {"strides": [1, 2, 2], "pads": [1, 0, 1, 0, 1, 2]}),
    "more padding than input": (2, 2, (2, 2), (3, 3), {"pads": [4, 4, 4, 4]}),
}
TRANSPOSED: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1-D": (3, 4, (5,), (3,), {"strides": [2]}),
    "2-D": (3, 4, (4, 5), (2, 2), {"strides": [2, 2]}),
    "overlapping": (3, 2, (4, 5), (4, 3), {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
    "gaps": (2, 3, (4, 5), (1, 2), {"strides": [3, 4]}),
    "cropped unevenly": (2, 3, (5, 5), (3, 4), {"strides": [2, 3], "pads": [0, 2, 1, 1]}),
    "output_padding": (2, 3, (4, 5), (3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1],
        "output_padding": [1, 2]}),
    "dilated": (2, 3, (4, 4), (3, 2), {"dilations": [2, 3], "strides": [2, 1]}),
    "grouped": (6, 4, (4, 4), (3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise": (4, 4, (4, 5), (2, 2), {"group": 4, "strides": [2, 2]}),
    "3-D": (2, 2, (3, 4, 3), (2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 1, 0]}),
}  # fmt: skip
CASES = [("Conv", n) for n in CONVS] + [("ConvTranspose", n) for n in TRANSPOSED]


@pytest.mark.parametrize(("op", "name"), CASES)
def test_patches_times_weights_are_the_layer(op: str, name: str) -> None:
    channels, made, size, kernel, attrs = (CONVS if op == "Conv" else TRANSPOSED)[name]
    rng = np.random.default_rng(len(name))
    groups, rank = attrs.get("group", 1), len(kernel)
    first = (made, channels // groups) if op == "Conv" else (channels, made // groups)
    x = rng.normal(size=(2, channels, *size)).astype(np.float32)
    W = rng.normal(size=(*first, *kernel)).astype(np.float32)
    y = run(op, x, W, attrs)
    window = Window(
        kernel,
        tuple(attrs.get("strides", [1] * rank)),
        tuple(attrs.get("dilations", [1] * rank)),
        tuple(attrs.get("pads", [0] * rank)[:rank]),
        op == "ConvTranspose",
        groups,
    )
    places = y.shape[2:]
    total = math.prod(places)
    rows = filters(op, W, groups)
    some = np.sort(rng.choice(total, min(total, 5), replace=False))
    for at, sample in itertools.product((np.arange(total), some), range(2)):
        patches = patches_at(x[sample : sample + 1], window, places, [at])
        assert patches.shape == (groups, len(at), rows.shape[2])
        assert patches.dtype == x.dtype
        got = (patches @ rows.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(len(at), made)
        wanted = y[sample].reshape(made, -1)[:, at].T
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_padding_is_zero_even_beside_what_is_not_finite() -> None:
    """A tap in the padding takes nothing; the values that lie next to it in memory do not show."""
    x = np.full((1, 3), 7.0, np.float32)
    window = Window((3,), (1,), (1,), (1,))
    found = patches_at(x[None], window, (3,), [np.arange(3)])
    np.testing.assert_array_equal(found[0], [[0, 7, 7], [7, 7, 7], [7, 7, 0]])


@pytest.mark.parametrize("axis", [0, -1, -2])
def test_rows_are_channels_at_positions(axis: int) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    found = rows_at(x, axis, np.array([0, 3, 5]))
    others = [k for k in range(3) if k != axis % 3]
    sizes = [x.shape[k] for k in others]
    for row, flat in zip(found, (0, 3, 5), strict=True):
        where: list[Any] = [slice(None)] * 3
        for k, i in zip(others, np.unravel_index(flat, sizes), strict=True):
            where[k] = i
        np.testing.assert_array_equal(row, x[tuple(where)])


def test_a_vector_is_one_position() -> None:
    np.testing.assert_array_equal(rows_at(np.arange(5.0), -1, np.array([0])), [np.arange(5.0)])


@given(st.integers(0, 9), st.integers(0, 10**6), st.integers(1, 5000), st.integers(1, 6000))
def test_positions_are_sorted_unique_and_in_range(
    seed: int, sample: int, positions: int, wanted: int
) -> None:
    found = choose_positions(seed, sample, positions, wanted)
    assert found.dtype == np.int64
    assert len(found) == min(positions, wanted)
    assert found[0] >= 0
    assert found[-1] < positions
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, choose_positions(seed, sample, positions, wanted))


def test_positions_are_spread_and_differ_by_seed_and_sample() -> None:
    drawn = [choose_positions(seed, sample, 1000, 10) for seed in (0, 1) for sample in (0, 1)]
    for one, other in itertools.combinations(drawn, 2):
        assert (one != other).any()
    for found in drawn:
        np.testing.assert_array_equal(found // 100, np.arange(10))


def test_every_position_is_taken_as_often() -> None:
    counts = np.zeros(10)
    for sample in range(4000):
        counts[choose_positions(0, sample, 10, 4)] += 1
    # Strata of two and three positions.
    np.testing.assert_allclose(counts / 4000, 0.4, atol=0.12)
