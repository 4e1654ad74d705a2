from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.graph.constants import Constants
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.targets import Stream, find_streams
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run, sizes_of
from tests.passes.layerwise.samples import layer_of, with_outputs


def streams_of(model: onnx.ModelProto) -> dict[str, Stream]:
    return find_streams(model, Constants(model), find_plain_layers(model))


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("residual", {"c"}),
        ("residual_with_projection", {"c"}),  # the branch, not the shortcut behind it in the file
        ("chain", set()),
        ("inception", set()),
        ("residual_onto_the_input", {"b"}),
        ("matmul_and_add", set()),  # the Add of a bias is no stream
    ],
)
def test_which_layer_mends_a_sum(name: str, who: set[str]) -> None:
    assert streams_of(MODELS[name].build()).keys() == who


@pytest.mark.parametrize(
    "name", ["residual", "residual_with_projection", "pre_activation", "residual_onto_the_input"]
)
def test_the_layers_own_outputs_are_wanted_where_the_stream_is_sound(name: str) -> None:
    """z = g·y + β′ + s, by running the model."""
    model = MODELS[name].build()
    found = streams_of(model)
    assert found
    feeds = feeds_for(model, sizes_of(model))
    for layer, stream in found.items():
        names = [layer_of(model, layer).output, stream.total, stream.other]
        made = [n for n in names if n not in feeds]
        tensors = feeds | dict(zip(made, run(with_outputs(model, *made), feeds), strict=True))
        y, z, s = (tensors[n].transpose(0, 2, 3, 1).reshape(-1, len(stream.gain)) for n in names)
        np.testing.assert_allclose(stream.wanted(y, z, s), y, rtol=1e-4, atol=1e-4)


def test_a_bias_lies_between_a_product_and_its_stream() -> None:
    net = Net(3, 6, 6)
    rows = net.op("Transpose", net.conv("x", 3, 5, name="in"), perm=[0, 2, 3, 1])
    y = net.op("MatMul", rows, net.weight(5, 5, fan_in=5), name="product")
    total = net.op("Add", rows, net.op("Add", net.weight(5, fan_in=1), y))
    model = net.model(net.relu(total))
    stream = streams_of(model)["product"]
    assert (stream.total, stream.other) == (total, rows)
    feeds = feeds_for(model, sizes_of(model))
    y, z, s = run(with_outputs(model, y, total, rows), feeds)
    np.testing.assert_allclose(stream.wanted(y, z, s), y, rtol=1e-3, atol=1e-4)


def test_a_branch_with_a_scale_mends_nothing() -> None:
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 5, name="in"))
    y = net.op("Mul", net.conv(x, 5, 5, name="branch"), net.weight(5, 1, 1, fan_in=1))
    assert not streams_of(net.model(net.relu(net.op("Add", x, y))))


def test_of_two_branches_that_are_as_deep_neither_can_wait() -> None:
    net = Net(3, 6, 6)
    one, other = net.conv("x", 3, 4, name="a"), net.conv("x", 3, 4, name="b")
    assert not streams_of(net.model(net.op("Add", one, other)))


def test_an_output_that_others_read_too_is_its_own() -> None:
    net = Net(3, 6, 6)
    x = net.conv("x", 3, 4, name="a")
    y = net.conv(x, 4, 4, name="b")
    model = net.model(net.op("Add", y, x), net.relu(y))
    assert not streams_of(model)


def test_a_tensor_added_to_itself_is_no_stream() -> None:
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    assert not streams_of(net.model(net.op("Add", y, y)))


def test_a_silent_channel_keeps_its_own_outputs() -> None:
    stream = Stream("z", "s", np.array([2.0, 1e-6, -0.5]), np.array([1.0, 1.0, 0.0]))
    y, z, s = (np.arange(6.0).reshape(2, 3) + k for k in (0, 10, 20))
    found = stream.wanted(y, z, s)
    np.testing.assert_array_equal(found[:, 1], y[:, 1])
    np.testing.assert_allclose(found[:, 0], (z - s - 1.0)[:, 0] / 2.0)
    np.testing.assert_allclose(found[:, 2], (z - s)[:, 2] / -0.5)
    silent = Stream("z", "s", np.zeros(3), np.zeros(3))
    np.testing.assert_array_equal(silent.wanted(y, z, s), y)
