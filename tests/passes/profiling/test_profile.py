"""`profile` with a stand-in for the clock: what goes in comes out, layer by layer."""

import itertools
import weakref

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn.calibration import Session
from onnx_esn.calibration.kernel_times import KernelClock
from onnx_esn.errors import OptionError
from onnx_esn.graph.readers import readers
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.profiling import timing
from onnx_esn.passes.profiling.grid import Widths, width_grid
from onnx_esn.passes.profiling.layer_models import LoneLayer, lone_layer
from onnx_esn.passes.profiling.timing import LayerTime, RuntimeTimer, WholeTime, random_feeds
from onnx_esn.plans.latency_model import LatencyModel
from tests.net import Net


def net_of_many_kinds():
    net = Net(3, 12, 12)
    y = net.conv_bn_relu("x", 3, 16, name="stem")
    y = net.relu(net.conv(y, 16, 16, group=16, name="dw"))
    y = net.relu(net.conv(y, 16, 24, k=1, name="b1"))
    y = net.relu(net.conv(y, 24, 24, name="c1"))
    y = net.relu(net.conv(y, 24, 24, name="c2"))
    y = net.relu(net.conv(y, 24, 24, group=4, name="grouped"))
    y = net.deconv(y, 24, 16)
    return net.model(net.head(net.relu(y), 16))


def coefficients(layer):
    """Made up: what the stand-in takes for a layer, from what does not change with its width."""
    size = int(np.prod(layer.output_shape[2:])) if len(layer.output_shape) > 2 else 1
    k = int(np.prod(layer.kernel)) if layer.kernel else 1
    c = (3e-6, 1e-8 * size, 2e-8 * size, 1e-10 * size * k)
    return (c[0], 0.0, c[2], 0.0) if layer.depthwise else c


class Clock:
    """Times by formula; in a whole model each layer takes `around` times as long."""

    def __init__(self, around=1.0, rest=0.0, others=0.0):
        self.around, self.rest, self.others = around, rest, others
        self.timed = []

    def layers(self, models):
        self.timed.append(len(models))
        return [self._layer(model) for model in models]

    def _layer(self, model):
        (layer,) = measured_view(model).layers
        t = self._seconds(layer)
        return LayerTime(t, 0.1, f"{layer.op} {layer.weight_shape} {layer.output_shape}")

    def _seconds(self, layer):
        c0, c1, c2, c3 = coefficients(layer)
        a, b = layer.channels_in, layer.filters
        return c0 + c1 * a + c2 * b + c3 * a * b

    def whole(self, model, feeds):
        layers = measured_view(model).layers
        kernels = {}
        for x in layers:
            key = f"{x.op} {x.weight_shape} {x.output_shape}"
            kernels[key] = self.around * self._seconds(x)
        elements = sum(int(np.prod(x.output_shape)) for x in layers)
        inside = self.around * sum(map(self._seconds, layers)) + self.others * elements
        return WholeTime(inside + self.rest, 0.2, kernels, inside)


def test_coefficients_of_every_layer_come_back():
    model = net_of_many_kinds()
    found = onnx_esn.profile(model, timer=Clock(rest=5e-5), round_to=1)
    for layer in measured_view(model).layers:
        own = found.model.layers[layer.name]
        fits = [own.seconds(a, b) for a, b in ((3, 16), (16, 24), (24, 8))]
        c0, c1, c2, c3 = coefficients(layer)
        if layer.depthwise:
            np.testing.assert_allclose((own.c0, own.c1, own.c2, own.c3), (c0, 0, c2, 0), rtol=1e-6)
        elif layer.channels_in > 3:
            wanted = [c0 + c1 * a + c2 * b + c3 * a * b for a, b in ((3, 16), (16, 24), (24, 8))]
            np.testing.assert_allclose(fits, wanted, rtol=1e-6)
        assert own.r2 == pytest.approx(1)
    assert found.model.rest == pytest.approx(5e-5, rel=1e-6)
    assert found.modelled == pytest.approx(found.seconds, rel=1e-6)
    assert found.skipped == ()


def test_what_the_model_around_takes_is_passed_on():
    """Layers slower inside by a half, and other operators in proportion to what they output."""
    model = net_of_many_kinds()
    found = onnx_esn.profile(model, timer=Clock(1.5, 2e-5, 1e-9), round_to=1)
    (pruned,) = [onnx_esn.prune(model, ratio=0.5, absorb="none").model]
    for candidate in (model, pruned):
        layers = measured_view(candidate).layers
        modelled = found.model.rest + sum(
            found.model.layers[x.name].seconds(x.channels_in, x.filters) for x in layers
        )
        measured = Clock(1.5, 2e-5, 1e-9).whole(candidate, {}).seconds
        assert modelled == pytest.approx(measured, rel=1e-6)
    assert {round(x.in_model, 6) for x in found.layers} == {1.5}
    assert found.others == pytest.approx(1e-9 * found_elements(model), rel=1e-4)


def found_elements(model):
    return sum(int(np.prod(x.output_shape)) for x in measured_view(model).layers)


def test_layers_that_are_alike_are_timed_once():
    model = net_of_many_kinds()
    clock = Clock()
    found = onnx_esn.profile(model, timer=clock, points=6)
    assert ("c1", "c2") in [x.names for x in found.layers]
    assert len(clock.timed) == 2 * len(found.layers) == 2 * 7  # all is timed twice
    assert set(found.model.layers) == {x.name for x in measured_view(model).layers}


def test_the_file_is_read_back():
    found = onnx_esn.profile(net_of_many_kinds(), timer=Clock(rest=1e-5))
    assert LatencyModel.from_json(found.model.to_json()) == found.model
    assert found.model.about["round_to"] == 8
    assert found.to_document()["schema"] == "onnx-esn/profile/1"


@pytest.mark.parametrize("option", ["points", "repeat", "round_to", "batch_size"])
def test_numbers_out_of_range(option):
    with pytest.raises(OptionError, match=option):
        onnx_esn.profile(net_of_many_kinds(), timer=Clock(), **{option: 0})


def test_a_seed_below_0():
    with pytest.raises(OptionError, match="seed must be at least 0, not -1"):
        onnx_esn.profile(net_of_many_kinds(), timer=Clock(), seed=-1)


def test_a_layer_that_was_not_timed_is_named_as_that():
    """What `profile` skipped is not said to be of another model."""
    model = onnx_esn.quantize(net_of_many_kinds(), bits=4, only=["c1"], format="qdq").model
    found = onnx_esn.profile(model, timer=Clock())
    assert [s.node for s in found.skipped] == ["c1"]
    step = {"selection": "qcqp", "target_latency": "90%", "latency_model": found.model}
    with pytest.raises(OptionError, match=r"has no layer 'c1': .* or the layer cannot be timed"):
        onnx_esn.prune(model, **step)


def test_a_real_clock():
    """The times themselves are the machine's; that they are there and add up is ours."""
    model = net_of_many_kinds()
    found = onnx_esn.profile(model, repeat=4, points=4)
    assert set(found.model.layers) == {x.name for x in measured_view(model).layers}
    assert found.seconds > 0
    assert all(x.seconds > 0 and x.fit(*x.widths) > 0 for x in found.layers)
    # Each kernel is found again in the whole model.
    sizes = {"x": (1, 3, 12, 12)}
    whole = RuntimeTimer(2, 1).whole(model, random_feeds(model, sizes))
    assert {x.kernels[x.widths] for x in found.layers} <= set(whole.kernels)


def test_a_large_model_is_loaded_once_at_a_time(monkeypatch):
    model, gone = net_of_many_kinds(), []

    class Watched(Session):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            weakref.finalize(self, gone.append, True)

    class Clocked(KernelClock):
        def __init__(self, *args):
            assert gone, "the session is still there"
            super().__init__(*args)

    monkeypatch.setattr(timing, "Session", Watched)
    monkeypatch.setattr(timing, "KernelClock", Clocked)
    feeds = random_feeds(model, {"x": (1, 3, 12, 12)})
    with pytest.raises(AssertionError):
        RuntimeTimer(2, 1).whole(model, feeds)
    gone.clear()
    monkeypatch.setattr(timing, "_LARGE", 0)
    whole = RuntimeTimer(2, 1).whole(model, feeds)
    assert whole.seconds > 0
    assert whole.kernels


def test_weights_that_are_integers_are_named():
    model = onnx_esn.quantize(net_of_many_kinds(), bits=8, format="qdq").model
    found = onnx_esn.profile(model, timer=Clock(rest=1e-5))
    assert found.model.layers == {}
    assert {s.node for s in found.skipped} >= {"stem", "c1", "grouped"}
    assert all("integers" in s.reason for s in found.skipped)
    assert found.model.rest == pytest.approx(found.seconds)


def _forms(dtype):
    """Gemm and MatMul in all forms, the weight on either side."""
    net = Net(8, 12, dtype=dtype)
    x = net.reshape("x", -1, 12)
    w, v = (
        net.weight(*shape, fan_in=12, name=n) for shape, n in (((12, 20), "w"), ((20, 12), "v"))
    )
    yield net, [net.op("Gemm", x, w), net.op("Gemm", x, v, transB=1)]
    net = Net(8, 12, dtype=dtype)
    x = net.op("Transpose", net.reshape("x", -1, 12), perm=[1, 0])
    w, v = (
        net.weight(*shape, fan_in=12, name=n) for shape, n in (((12, 20), "w"), ((20, 12), "v"))
    )
    yield net, [net.op("Gemm", w, x, transA=1), net.op("Gemm", v, x), net.op("MatMul", v, x)]
    net = Net(8, 12, dtype=dtype)
    bias = net.vector(1, 20)
    yield net, [net.op("Gemm", net.reshape("x", -1, 12), net.weight(12, 20, fan_in=12), bias)]
    net = Net(8, 12, dtype=dtype)
    yield net, [net.op("MatMul", "x", net.weight(12, 20, fan_in=12))]


@pytest.mark.parametrize("form", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_layer_alone_at_any_width(form, dtype):
    net, outputs = list(_forms(dtype))[form]
    model = net.model(*outputs)
    view, users = measured_view(model), readers(model)
    assert len(view.layers) == len(outputs)
    for layer in view.layers:
        x = lone_layer(model, view, layer, users)
        assert isinstance(x, LoneLayer)
        for n_in, n_out in ((12, 20), (5, 20), (12, 7), (1, 1)):
            check(x, n_in, n_out)


def check(x, n_in, n_out):
    """The model of one layer is valid, runs, and has just these widths."""
    alone = x.model(n_in, n_out)
    onnx.checker.check_model(alone, full_check=True)
    (layer,) = measured_view(alone).layers
    assert (layer.op, layer.channels_in, layer.filters) == (x.layer.op, n_in, n_out)
    session = Session(alone)
    (out,) = session.run(random_feeds(alone)).values()
    assert np.isfinite(out).all()
    assert np.abs(out).max() > 0


def test_convolutions_alone():
    model = net_of_many_kinds()
    view, users = measured_view(model), readers(model)
    for layer in view.layers[:-1]:
        x = lone_layer(model, view, layer, users)
        unit = layer.groups if not layer.depthwise else 1
        for a, b in ((layer.channels_in, layer.filters), (unit, unit), (3 * unit, 3 * unit)):
            check(x, min(a, layer.channels_in), b)
    tails = {x.layer.name: [n.op_type for n in x.tail] for x in map(alone(model), view.layers)}
    assert tails["stem"] == ["BatchNormalization", "Relu"]
    assert tails["c1"] == ["Relu"]


def alone(model):
    view, users = measured_view(model), readers(model)
    return lambda layer: lone_layer(model, view, layer, users)


def test_zero_padding_before_a_convolution_belongs_to_it():
    net = Net(8, 9, 9)
    pads = net.ints(0, 0, 1, 1, 0, 0, 2, 2)
    y = net.conv(net.op("Pad", "x", pads), 8, 4, pads=[0] * 4, name="fused")
    reflected = net.op("Pad", net.relu(y), pads, mode="reflect")
    z = net.conv(reflected, 4, 4, pads=[0] * 4, name="not")
    model = net.model(z)
    heads = {x.layer.name: x.head for x in map(alone(model), measured_view(model).layers)}
    assert heads["fused"] is not None
    assert heads["not"] is None
    view = measured_view(model)
    check(alone(model)(view.layers[0]), 8, 4)


def test_a_tail_that_others_read_too_stays_out():
    net = Net(8, 9, 9)
    y = net.conv("x", 8, 8, name="a")
    model = net.model(net.op("Add", net.relu(y), y))
    (layer,) = measured_view(model).layers
    assert alone(model)(layer).tail == ()


def test_a_grid_is_its_seed():
    one = width_grid(Widths(64, 8), Widths(96, 8), 12, 3)
    assert one == width_grid(Widths(64, 8), Widths(96, 8), 12, 3)
    assert one != width_grid(Widths(64, 8), Widths(96, 8), 12, 4)
    assert one[0] == (64, 96)
    assert set(itertools.product((8, 64), (16, 96))) <= set(one)
    assert len(set(one)) == len(one) == 12
    assert all(a % 8 == b % 8 == 0 for a, b in one)


def test_grids_of_few_widths():
    assert width_grid(Widths(3, 8), Widths(10, 8), 9, 0) == [(3, 10), (3, 8)]
    assert width_grid(Widths(1), Widths(1), 9, 0) == [(1, 1)]
    tied = width_grid(Widths(32, 8), Widths(32, 8), 9, 0, tied=True)
    assert sorted(tied) == [(8, 8), (16, 16), (24, 24), (32, 32)]
    assert Widths(100, 8).choices() == [*range(16, 100, 8), 100]


def test_large_layers_are_timed_a_few_at_a_time(monkeypatch):
    model = net_of_many_kinds()
    whole = onnx_esn.profile(model, timer=Clock(rest=1e-5))
    monkeypatch.setattr("onnx_esn.passes.profiling.kinds._MOST_WEIGHTS", 3000)
    clock = Clock(rest=1e-5)
    assert onnx_esn.profile(model, timer=clock).model == whole.model
    assert len(clock.timed) > 2 * len(whole.layers)
    assert 0 not in clock.timed
