"""What single filters do to the outputs, told by going backward, against changing each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.gradients.in_float32 import in_float32
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.allocation.filter_errors import Change, filter_errors
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.working_copy import with_own_weights
from tests.net import Net
from tests.passes.layerwise.samples import some_images

SMALL = 3e-4


def one_number(net: Net, x: str, c: int) -> onnx.ModelProto:
    """A head with one output: its divergence needs no random directions but signs."""
    return net.model(net.head(x, c, 1))


def dense() -> onnx.ModelProto:
    net = Net(3, 8, 8)
    x = net.conv_bn_relu("x", 3, 6)
    x = net.op("Add", net.conv(net.relu(net.conv(x, 6, 6)), 6, 6), x)
    return one_number(net, net.conv(x, 6, 5, strides=[2, 2]), 5)


def depthwise_and_gate() -> onnx.ModelProto:
    net = Net(3, 8, 8)
    x = net.op("HardSwish", net.conv("x", 3, 6))
    x = net.op("HardSwish", net.conv(x, 6, 6, group=6))
    gate = net.op("HardSigmoid", net.conv(net.op("GlobalAveragePool", x), 6, 6, 1))
    return one_number(net, net.conv(net.op("Mul", x, gate), 6, 4, 1, group=2), 4)


def transposed_and_padded() -> onnx.ModelProto:
    net = Net(3, 8, 8)
    x = net.op("Pad", "x", net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    x = net.relu(net.conv(x, 3, 4, pads=[0, 0, 0, 0]))
    return one_number(net, net.deconv(x, 4, 5, strides=[2, 2]), 5)


def products() -> onnx.ModelProto:
    net = Net(3, 8, 8)
    x = net.reshape(net.conv("x", 3, 4), 0, 4, -1)
    x = net.relu(net.linear(net.op("Transpose", x, perm=[0, 2, 1]), 4, 6))
    x = net.op("ReduceMean", x, axes=[1], keepdims=0)
    return net.model(net.gemm(net.relu(net.gemm(x, 6, 5)), 5, 1))


NETWORKS: list[Callable[[], onnx.ModelProto]] = [
    dense,
    depthwise_and_gate,
    transposed_and_padded,
    products,
]


def changes_of(
    model: onnx.ModelProto, size: float = SMALL, ways: int = 1
) -> dict[str, list[Change]]:
    rng, constants = np.random.default_rng(0), Constants(model)
    found = {}
    for layer in find_plain_layers(model):
        rows = layer.as_filters(constants.value(layer.weight)).astype(np.float64)
        noises = size * np.abs(rows).max() * rng.normal(size=(ways, *rows.shape))
        found[layer.name] = [Change(noise, 0.3 * noise.sum(axis=1)) for noise in noises]
    return found


def outputs(model: onnx.ModelProto, images: CalibrationSet) -> Floats:
    session = Session(model)
    (found,) = collect_outputs(session, images.for_inputs(session.inputs), 64).values()
    return found.astype(np.float64)


class OneByOne:
    """A model of which single filters are changed."""

    def __init__(self, model: onnx.ModelProto, images: CalibrationSet) -> None:
        self.layers = {x.name: x for x in find_plain_layers(model)}
        layers = list(self.layers.values())
        self._copy, self._slots = with_own_weights(model, Constants(model), layers)
        self._stored = {t.name: t for t in self._copy.graph.initializer}
        self._images = images
        self.reference = outputs(self._copy, images)

    def outputs(self, name: str, f: int, change: Change, times: float = 1.0) -> Floats:
        """The outputs with filter f of a layer changed."""
        layer, slot = self.layers[name], self._slots[name]
        mine = times * (np.arange(layer.filters) == f)
        rows = layer.as_filters(slot.W).astype(np.float64) + change.rows * mine[:, None]
        values = slot.values(layer, rows, -change.shift * mine)
        kept = {tensor: self._stored[tensor].SerializeToString() for tensor in values}
        for tensor, value in values.items():
            self._stored[tensor].CopyFrom(onnx.numpy_helper.from_array(value, tensor))
        found = outputs(self._copy, self._images)
        for tensor, text in kept.items():
            self._stored[tensor].ParseFromString(text)
        return found

    def errors(self, name: str, change: Change) -> Floats:
        """Σ(out − ref)²/Σref² (M,) with each filter of a layer changed."""
        filters = range(self.layers[name].filters)
        apart = np.array([self.outputs(name, f, change) - self.reference for f in filters])
        each = np.square(apart).reshape(len(apart), -1).sum(axis=1)
        return np.asarray(each / np.square(self.reference).sum())


@pytest.mark.parametrize("build", NETWORKS)
def test_each_filter_as_if_it_alone_were_changed(build):
    model = build()
    images, changes = some_images(model, 9), changes_of(model, ways=2)
    found = filter_errors(model, changes, images)
    one_by_one = OneByOne(model, images)
    assert set(found) == set(one_by_one.layers)
    for name, ways in changes.items():
        assert len(found[name]) == len(ways)
        for errors, change in zip(found[name], ways, strict=True):
            expected = one_by_one.errors(name, change)
            assert errors == pytest.approx(expected, rel=0.03, abs=1e-3 * expected.max()), name


@pytest.mark.parametrize("build", NETWORKS)
def test_batches_do_not_matter(build):
    model = build()
    images, changes = some_images(model, 7), changes_of(model)
    whole = filter_errors(model, changes, images)
    done: list[tuple[int, int]] = []
    parts = filter_errors(model, changes, images, batch_size=3, progress=lambda *x: done.append(x))
    assert done == [(3, 7), (6, 7), (7, 7)]
    for name, errors in whole.items():
        assert parts[name] == pytest.approx(errors, rel=1e-4), name


def test_a_fixed_batch():
    model = dense()
    images, changes = some_images(model, 6), changes_of(model)
    whole = filter_errors(model, changes, images)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    parts = filter_errors(fixed, changes, images)
    for name, errors in whole.items():
        assert parts[name] == pytest.approx(errors, rel=1e-4), name


def test_classes_on_many_images():
    """The divergence of scores, at temperature 1, averages to what is predicted."""
    net = Net(3, 8, 8)
    model = net.model(net.op("Softmax", net.head(net.conv_bn_relu("x", 3, 6), 6, 4), axis=1))
    images, changes = some_images(model, 3_000), changes_of(model)
    found = filter_errors(model, changes, images, temperature=1.0)
    one_by_one = OneByOne(model, images)
    for name, (change,) in changes.items():
        for f in range(2):
            p, q = one_by_one.reference, one_by_one.outputs(name, f, change, times=10)
            kl = (p * np.log(p / q)).sum(axis=1).mean()
            assert found[name][0, f] * 100 == pytest.approx(kl, rel=0.15), (name, f)


def test_no_gradient_is_known():
    """Of layers behind it something is told, of those in front of it nothing."""
    net = Net(3, 8, 8)
    x = net.relu(net.conv("x", 3, 4, name="front"))
    x = net.op("Det", net.reshape(x, 0, 64, 2, 2))
    model = net.model(net.gemm(x, 64, 1, name="behind"))
    found = filter_errors(model, changes_of(model), some_images(model, 5))
    assert set(found) == {"behind"}


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats(kind: type):
    """Worked out in float32, whichever runs."""
    net = Net(3, 8, 8, dtype=kind)
    x = net.relu(net.conv("x", 3, 6, name="a"))
    x = net.op("Add", net.conv(x, 6, 6, name="b"), x)
    model = one_number(net, x, 6)
    images, changes = some_images(model, 9), changes_of(model)
    found = filter_errors(model, changes, images)
    one_by_one = OneByOne(in_float32(model), images)
    assert set(found) == set(changes)
    for name, (change,) in changes.items():
        expected = one_by_one.errors(name, change)
        assert found[name][0] == pytest.approx(expected, rel=0.03, abs=1e-3 * expected.max()), name


def test_outputs_without_gradients():
    net = Net(3, 8, 8)
    whole = net.op("ReduceMean", net.conv("x", 3, 4), keepdims=0)
    model = net.model(whole)
    assert filter_errors(model, changes_of(model), some_images(model, 5)) == {}


def test_no_changes():
    assert filter_errors(dense(), {}, some_images(dense(), 5)) == {}
