"""Spatial pruning: smaller kernels ≡ kernels with zeros, on every graph."""

import random
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn.errors import BudgetError, OptionError, PlanError
from onnx_esn.numerics.kernel_positions import Cut
from onnx_esn.passes.layers.costs import measured_view, total_macs
from onnx_esn.passes.spatial.pruning import PruneSpatial
from onnx_esn.plans import SpatialPlan, parse_plan
from tests import models, models_blocks, models_families, models_storage
from tests.graph.random_graphs import random_model, sizes_of_run
from tests.net import Net, feeds_for
from tests.oracles.equivalence import (
    difference,
    relative_difference,
    run,
    run_reference,
    sizes_of,
    tolerance,
)
from tests.oracles.spatial import zeroed_model

assert all((models_blocks, models_families, models_storage))  # they register their graphs


def check(model, result, sizes):
    """Valid, the same outputs as with zeros, the plan replays byte for byte."""
    onnx.checker.check_model(result.model, full_check=True)
    zeroed = zeroed_model(model, result.plan)
    for seed, size in enumerate(sizes):
        assert difference(zeroed, result.model, size, seed) <= tolerance(model)
    plan = parse_plan_text(result.plan.to_json())
    assert plan == result.plan
    again = PruneSpatial(plan=plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert {k: again.details[k] for k in result.details} == dict(result.details)


def parse_plan_text(text):
    import json

    return parse_plan(json.loads(text), SpatialPlan)


def smallest(model):
    """As small as the padding allows: the error says how small that is."""
    with pytest.raises(BudgetError) as caught:
        PruneSpatial(target_macs=1)(model)
    text = str(caught.value).split("allows ")[1].split(" remain")[0].replace(",", "")
    return PruneSpatial(target_macs=int(text))(model)


@pytest.mark.parametrize("name", sorted(models.MODELS))
@pytest.mark.parametrize("how", ["smallest", "half", "zeros"])
def test_graphs(name, how):
    model = models.MODELS[name].build()
    sizes = [sizes_of(model, n) for n in (2, 3)]
    if how == "zeros":
        result = PruneSpatial(ratio=0.6)(model)
    elif how == "smallest":
        try:
            result = smallest(model)
        except pytest.fail.Exception:
            return  # it has no MACs
    else:
        low = smallest(model).details if total(model) else None
        if low is None:
            return
        target = (low["macs_before"] + low["macs_after"]) // 2
        result = PruneSpatial(target_macs=max(target, 1))(model)
        assert result.details["macs_after"] <= max(target, 1)
    if result.modified:
        check(model, result, sizes)


def total(model):
    return PruneSpatial(ratio=0.0)(model).details["macs_before"]


def check_random(seed):
    model = random_model(random.Random(seed))
    sizes = [sizes_of_run(model, k) for k in (0, 1)]
    shrunk = 0
    for step in (
        PruneSpatial(ratio=0.5, input_shapes=sizes[0]),
        PruneSpatial(plan=most_cut(model, sizes[0]), input_shapes=sizes[0]),
    ):
        result = step(model)
        if result.modified:
            onnx.checker.check_model(result.model, full_check=True)
            zeroed = zeroed_model(model, result.plan)
            for i, size in enumerate(sizes):
                assert difference(zeroed, result.model, size, i) <= tolerance(model), seed
            shrunk += result.details["layers_shrunk"]
    return shrunk


def most_cut(model, shapes):
    """A plan that cuts each kernel as far as its padding allows."""
    from onnx_esn.passes.spatial.decision import to_plan, whole_cut

    step = PruneSpatial(ratio=0.0, input_shapes=shapes)
    _, candidates, _ = step._found(onnx_esn.graph.standard_form.standard_form(model, shapes=shapes))
    cuts = []
    for x in candidates:
        ends = zip(x.kernel, x.most.begin, x.most.end, strict=True)
        end = tuple(min(b, k - 1 - a) for k, a, b in ends)
        cuts.append((x, Cut(x.most.begin, end)))
    return to_plan([whole_cut(x, cut) for x, cut in cuts if cut])


def test_random_graphs():
    assert sum(check_random(seed) for seed in range(20)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_graphs(block):
    assert sum(check_random(seed) for seed in range(100 * block, 100 * block + 100)) > 50


CONVS = {
    "plain": {"pads": [1, 1, 1, 1]},
    "asymmetric": {"pads": [0, 2, 1, 1]},
    "strided": {"pads": [1, 1, 1, 1], "strides": [2, 3]},
    "dilated": {"pads": [2, 3, 2, 4], "dilations": [2, 3]},
    "same upper": {"auto_pad": "SAME_UPPER"},
    "same lower, strided": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "grouped": {"pads": [1, 1, 1, 1], "group": 2},
    "depthwise": {"pads": [2, 2, 2, 2], "group": 4, "k": 5},
}


@pytest.mark.parametrize("form", CONVS)
@pytest.mark.parametrize("opset", [9, 13, 23])
def test_forms_of_convolution(form, opset):
    net = Net(4, 9, 11, opset=opset)
    attrs = dict(CONVS[form])
    y = net.conv("x", 4, 4, attrs.pop("k", 3), name="c", **attrs)
    model = net.model(net.relu(y))
    result = smallest(model)
    assert result.details["layers_shrunk"] == 1
    check(model, result, [{"x": (n, 4, 9, 11)} for n in (1, 3)])
    # The reference evaluator agrees, with the whole kernels too.
    feeds = feeds_for(model, {"x": (2, 4, 9, 11)}, 0)
    zeroed = zeroed_model(model, result.plan)
    if "SAME" not in str(CONVS[form]):  # it pads other sides than onnxruntime there
        a, b = run_reference(zeroed, feeds), run_reference(result.model, feeds)
        assert relative_difference(a, b) < 1e-5
    assert total_macs(result.model) == result.details["macs_after"]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("attrs", [{}, {"output_padding": [1, 1]}, {"dilations": [2, 2]}])
def test_transposed_convolutions(group, attrs):
    net = Net(4, 6, 5)
    y = net.deconv("x", 4, 4, 3, group=group, strides=[2, 2], pads=[1, 1, 2, 1], **attrs)
    model = net.model(y)
    result = smallest(model)
    assert result.details["layers_shrunk"] == 1
    check(model, result, [{"x": (2, 4, 6, 5)}])


def test_a_pad_before_is_taken_in():
    net = Net(4, 9, 9)
    y = net.op("Pad", "x", net.ints(0, 0, 1, 2, 0, 0, 1, 1))
    model = net.model(net.conv(y, 4, 4, pads=[0] * 4))
    result = smallest(model)
    assert [n.op_type for n in result.model.graph.node] == ["Conv"]
    assert result.details["kernels"]["conv_1"] == [1, 1]
    check(model, result, [{"x": (2, 4, 9, 9)}])


def test_a_pad_that_others_read_stays():
    net = Net(4, 9, 9)
    y = net.op("Pad", "x", net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    model = net.model(net.conv(y, 4, 4, pads=[0] * 4), y)
    found = PruneSpatial(target_macs=10**9)(model)
    assert not found.modified
    assert any("no zero padding" in s.reason for s in found.skipped)


def test_what_is_left_is_named():
    net = Net(4, None, None)
    y = net.conv("x", 4, 4, k=1, name="point")
    y = net.conv(y, 4, 4, pads=[0] * 4, name="valid")
    y = net.conv(y, 4, 4, auto_pad="SAME_UPPER", strides=[2, 2], name="open")
    model = net.model(y)
    result = PruneSpatial(target_macs=10**12, input_shapes={"x": (1, 4, 9, 9)})(model)
    reasons = {s.node: s.reason for s in result.skipped}
    assert "1×1" in reasons["point"]
    assert "skip inputs" in reasons["valid"]
    assert "size of the input" in reasons["open"]


def test_weights_that_two_layers_share():
    net = Net(4, 8, 8)
    W = net.weight(4, 4, 3, 3, fan_in=36)
    a = net.op("Conv", "x", W, kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="a")
    b = net.op("Conv", net.relu(a), W, kernel_shape=[3, 3], pads=[1, 0, 1, 1], name="b")
    model = net.model(b)
    result = smallest(model)
    assert result.plan.layers[0].begin == (1, 0)  # what both have room for
    assert result.details["layers_shrunk"] == 2
    assert len(result.model.graph.initializer) == 1
    check(model, result, [{"x": (2, 4, 8, 8)}])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_ratio_zeroes_the_least_important(scope):
    net = Net(3, 8, 8)
    y = net.relu(net.conv("x", 3, 6, name="a"))
    model = net.model(net.conv(y, 6, 5, name="b"))
    result = PruneSpatial(ratio=0.4, scope=scope)(model)
    d = result.details
    assert d["positions_before"] == 9 * 11
    gone = d["positions_zeroed"] + d["positions_cut"]
    assert 0.4 * 99 - 2 < gone <= 0.4 * 99
    zeros = sum(int((x == 0).sum()) for x in weights(result.model))
    assert zeros == d["weights_zeroed"] > 0
    check(model, result, [{"x": (2, 3, 8, 8)}])


def weights(model):
    return [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 4]


def test_a_border_that_no_filter_keeps_is_cut():
    net = Net(3, 8, 8)
    model = net.model(net.conv("x", 3, 6, name="a"))
    W = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(W).copy()
    values[..., 0, :] *= 1e-3
    values[..., :, 2] *= 1e-3
    W.CopyFrom(onnx.numpy_helper.from_array(values, W.name))
    result = PruneSpatial(ratio=5 / 9)(model)
    assert result.details["kernels"] == {"a": [2, 2]}
    assert result.details["positions_zeroed"] == 0
    assert result.details["macs_after"] * 9 == result.details["macs_before"] * 4
    check(model, result, [{"x": (2, 3, 8, 8)}])


def images(shape, n=24):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(n, shape[0], 1, 1))
    return (base + rng.normal(size=(n, *shape))).astype(np.float32)


@pytest.mark.parametrize("given", [{"ratio": 0.5}, {"target_macs": "60%"}])
def test_refit_keeps_zeros_and_helps(given):
    net = Net(3, 10, 10)
    y = net.conv_bn_relu("x", 3, 8, name="a")
    y = net.conv_bn_relu(y, 8, 8, name="b")
    model = net.model(net.head(y, 8))
    data = images((3, 10, 10))
    plain = onnx_esn.prune(model, granularity="spatial", **given)
    fitted = onnx_esn.prune(model, granularity="spatial", images=data, **given)
    assert fitted.plan == plain.plan
    assert fitted.details["refitted_layers"] == 3
    for a, b in zip(weights(plain.model), weights(fitted.model), strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a == 0, b == 0)
        assert (a != b).any()
    wanted, without, with_ = (run(m, {"x": data})[0] for m in (model, plain.model, fitted.model))
    assert ((with_ - wanted) ** 2).sum() < 0.5 * ((without - wanted) ** 2).sum()
    replayed = onnx_esn.prune(model, plan=fitted.plan, images=data)
    assert replayed.model.SerializeToString() == fitted.model.SerializeToString()


def test_quantized_weights_keep_their_grid():
    net = Net(3, 8, 8)
    model = onnx_esn.quantize(net.model(net.conv("x", 3, 6, name="a")), bits=4).model
    zeros = PruneSpatial(ratio=0.5)(model)
    assert not zeros.modified
    assert "grid" in zeros.skipped[0].reason
    smaller = PruneSpatial(target_macs="50%")(model)
    check(model, smaller, [{"x": (2, 3, 8, 8)}])
    assert onnx_esn.inspect(smaller.model).layers[0].bits == {4: 6}


def test_options():
    net = Net(3, 8, 8)
    model = net.model(net.conv("x", 3, 6, name="a"))
    spatial = {"granularity": "spatial"}
    for given, message in (
        ({**spatial}, "say how much"),
        ({**spatial, "ratio": 0.5, "target_macs": "50%"}, "say how much"),
        ({**spatial, "ratio": 1.0}, "fraction"),
        ({**spatial, "ratio": 0.5, "round_to": 8}, "round_to speaks of channels"),
        ({**spatial, "ratio": 0.5, "exact": True}, "exact speaks of channels"),
        ({**spatial, "ratio": 0.5, "criterion": "l1-norm"}, "criterion speaks of channels"),
        ({**spatial, "ratio": 0.5, "only": ["nothing"]}, "matches no layer"),
        ({"granularity": "kernel", "ratio": 0.5}, "not known"),
        ({**spatial, "ratio": 0.5, "latency_model": "x"}, "latency_model speaks of channels"),
    ):
        with pytest.raises(OptionError, match=message):
            onnx_esn.prune(model, **given)
    with pytest.raises(OptionError, match="about channels"):
        onnx_esn.prune(model, plan=onnx_esn.prune(model, ratio=0.0).plan, **spatial)
    unchanged = onnx_esn.prune(model, ratio=0.5, exclude=["a"], **spatial)
    assert not unchanged.modified


def test_plans_that_do_not_fit(tmp_path):
    net = Net(3, 8, 8)
    model = net.model(net.conv("x", 3, 6, pads=[1, 1, 0, 0], name="a"))
    plan = PruneSpatial(ratio=0.3)(model).plan
    (entry,) = plan.layers
    for changed, message in (
        ({"node": "b"}, "no kernel positions"),
        ({"kernel": (5, 5)}, "is 3×3, not 5×5"),
        ({"end": (1, 0)}, "that much room"),
        ({"begin": (1, 1), "end": (2, 2)}, "nothing of it"),
        ({"zeroed": "no text"}, "damaged"),
        ({"zeroed": entry.zeroed[:4]}, "'a': its 'zeroed'"),
        ({"zeroed": "eJwDAAAAAAE="}, "another model"),
    ):
        wrong = SpatialPlan((replace(entry, **changed),))
        with pytest.raises(PlanError, match=message):
            onnx_esn.prune(model, plan=wrong)
    with pytest.raises(PlanError, match="names 'a' twice"):
        onnx_esn.prune(model, plan=SpatialPlan((entry, entry)))
    for given in ({"only": ["a"]}, {"exclude": ["a"]}, {"scope": "layer"}):
        with pytest.raises(OptionError, match=f"{next(iter(given))} does not go with a plan"):
            onnx_esn.prune(model, plan=plan, **given)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert onnx_esn.prune(model, plan=path).plan == plan
    path.write_text(
        plan.to_json().replace('"end": [0, 0]', '"end": [2, 1]', 1).replace("[0, 0]", "[1, 0]")
    )
    with pytest.raises(PlanError, match="must leave something"):
        onnx_esn.prune(model, plan=path)


def test_target_met_tightly():
    """No other choice of windows is nearer to the target from below with less loss."""
    net = Net(3, 12, 12)
    y = net.relu(net.conv("x", 3, 6, name="a"))
    model = net.model(net.conv(y, 6, 5, k=5, name="b"))
    whole = measured_view(model)
    total = sum(x.macs for x in whole.layers)
    for share in (0.9, 0.7, 0.5, 0.3):
        result = PruneSpatial(target_macs=f"{100 * share}%")(model)
        assert result.details["macs_after"] <= share * total
        assert result.details["macs_after"] == total_macs(result.model)
        assert result.details["positions_zeroed"] == 0
