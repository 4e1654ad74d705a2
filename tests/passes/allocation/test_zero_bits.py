"""Filters with 0 bits in channels that stay: which may be, and that nothing else goes with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.graph.channels.groups import Analysis, analyse
from onnx_esn.passes.allocation import measuring
from onnx_esn.passes.allocation.joint import decide
from onnx_esn.passes.allocation.losses import filter_classes
from onnx_esn.passes.allocation.measuring import measure_losses
from onnx_esn.passes.allocation.zero_bits import droppable, shared_filters
from onnx_esn.passes.layers.costs import total_cost, total_macs
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.plans import QuantizationPlan
from tests.models import MODELS
from tests.net import Net
from tests.passes.allocation.test_budgets import OPTIONS, images, losses, model


def residual() -> onnx.ModelProto:
    """Two branches and a skip; a bottleneck with a depthwise layer; one head."""
    net = Net(3, 8, 8)
    x = net.relu(net.conv("x", 3, 6, name="stem"))
    for block in "12":
        y = net.relu(net.conv(x, 6, 4, name=f"inner{block}"))
        x = net.op("Add", net.conv(y, 4, 6, name=f"outer{block}"), x)
    y = net.relu(net.conv(x, 6, 8, 1, name="expand"))
    y = net.relu(net.conv(y, 8, 8, group=8, name="depthwise"))
    return net.model(net.head(net.conv(y, 8, 5, 1, name="project"), 5))


def test_only_channels_with_several_writers():
    found = shared_filters(analyse(residual()))
    assert {name: int(filters.sum()) for name, filters in found.items()} == {
        "stem": 6,
        "outer1": 6,
        "outer2": 6,
    }


def test_locked_channels_keep_all_their_bits():
    """A sum that is an output."""
    net = Net(3, 8, 8)
    x = net.op("Add", net.conv("x", 3, 4), net.conv("x", 3, 4))
    assert shared_filters(analyse(net.model(x))) == {}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_something_stays_of_each_layer_and_each_channel(name: str):
    analysis = analyse(MODELS[name].build())
    rng = np.random.default_rng(0)
    shared = shared_filters(analysis)
    found = droppable(analysis, {k: rng.integers(0, 4, v.size) / 4 for k, v in shared.items()})
    assert set(found) == set(shared)
    assert all((~may).any() for may in found.values())
    written = np.zeros(len(analysis.classes), bool)
    for layer in analysis.layers:
        classes = filter_classes(analysis, layer)
        stays = ~found.get(layer.name, np.zeros(layer.filters, bool))
        written[classes[stays & (classes >= 0)]] = True
    for classes in map(np.unique, _all_classes(analysis)):
        assert written[classes].all()


def _all_classes(analysis: Analysis):
    for layer in analysis.layers:
        classes = filter_classes(analysis, layer)
        yield classes[classes >= 0]


def test_what_is_missed_most_stays():
    analysis = analyse(residual())
    missed = {
        "stem": np.array([5.0, 1, 1, 1, 1, 1]),
        "outer1": np.array([1.0, 5, 5, 1, 1, 9]),
        "outer2": np.array([2.0, 2, 2, 2, 2, 2]),
    }
    found = {k: np.flatnonzero(v).tolist() for k, v in droppable(analysis, missed).items()}
    # stem and outer2: of each channel the largest stays; and of outer2 its first filter anyway.
    assert found == {"stem": [1, 2, 3, 4, 5], "outer1": [0, 3, 4], "outer2": [1, 2, 5]}


def test_below_one_bit_with_all_channels():
    for bits in (0.75, 0.9, 1.0):
        budget = bits * total_macs(model())
        found = decide(losses(), budget, prune_scale=np.inf)
        assert not found.gone.size
        assert 0.97 * budget <= found.cost <= budget
        for name, b in found.bits.items():
            may = losses().droppable.get(name, np.zeros(b.size, bool))
            assert (b[~may] > 0).all()


def test_zero_filters_stay_where_their_channels_do():
    done = CompensatedQuantization(images(), target_cost=0.85 * total_macs(model()), walk=OPTIONS)(
        model()
    )
    assert done.details["pruned_filters"] > 0
    assert total_macs(done.model) == total_macs(model())
    assert total_cost(done.model) <= 0.85 * total_macs(model())


def test_without_gradients_no_filter_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measuring, "filter_errors", lambda *_, **__: {})
    found = measure_losses(model(), images(), passes=4, options=OPTIONS)
    assert found.bits
    assert found.droppable == {}


def test_mid_tread_has_no_single_bit():
    """Filters of a budget have 0 bits, or 2 and more."""
    done = CompensatedQuantization(
        images(), target_cost=1.7 * total_macs(model()), quantizer="mid-tread", walk=OPTIONS
    )(model())
    assert isinstance(done.plan, QuantizationPlan)
    bits = np.concatenate([x.bits for x in done.plan.layers])
    assert (bits == 0).any()
    assert (bits != 1).all()
