from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_esn.calibration import input_specs, open_set
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.streamed import stream_moments
from onnx_esn.errors import ImageSetError, ModelError, OptionError
from onnx_esn.graph.norms.points import find_norm_points
from onnx_esn.passes.correcting.recalibration import Recalibrate
from tests.net import Net
from tests.oracles.batch_norm import training_statistics

IMAGES = np.random.default_rng(5).normal(0.2, 1.0, (40, 3, 8, 8)).astype(np.float32)


def network(bn=True, **options):
    """A small residual network; without `bn` its BatchNormalization is folded by hand."""
    net = Net(3, 8, 8, seed=3, **options)

    def block(x, c, m, **attrs):
        y = net.conv(x, c, m, bias=not bn, name=f"conv{len(net.nodes)}", **attrs)
        return net.relu(net.bn(y, m) if bn else y)

    y = block("x", 3, 6)
    y = net.op("Add", block(y, 6, 6), y)
    y = block(block(y, 6, 8, strides=[2, 2]), 8, 8, group=8)
    model = net.model(net.head(y, 8, 5))
    if bn:  # statistics as a trained network has them
        truth = training_statistics(model if not options else network(), {"x": IMAGES})
        stored = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "BatchNormalization":
                for name, value in zip(node.input[3:], truth[node.name], strict=True):
                    wrong = (value * np.float32(1.1)).astype(net.dtype)
                    stored[name].CopyFrom(numpy_helper.from_array(wrong, name))
    return model


def damaged(model, seed=0, scale=0.25):
    """Multiplicative noise on all weights: a stand-in for coarse quantization."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for tensor in copy.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim > 1:
            value = (0.7 * value * rng.normal(1, scale, value.shape)).astype(value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return copy


def output_moments(model, images=IMAGES):
    """Mean and standard deviation of what each norm point puts out."""
    points = find_norm_points(model).points
    at = [Point(p.name, p.output, p.axis, p.output) for p in points]
    found = stream_moments(model, at, open_set(images, input_specs(model)))
    return {p.name: (found[p.output].mean, found[p.output].std) for p in points}


def measured(images=IMAGES, held_out=0.2):
    """The part of the images that statistics are taken from."""
    rest, _ = open_set(images, input_specs(network())).split(held_out)
    return next(rest.batches(len(rest))).feeds["x"]


@pytest.mark.parametrize("bn", [True, False], ids=["kept", "folded"])
def test_match_gives_the_outputs_the_moments_of_the_reference(bn):
    reference = network(bn)
    model = damaged(reference)
    result = Recalibrate(IMAGES, reference)(model)
    assert result.modified
    details = result.details
    assert details["method"] == "match"
    assert (details["images"], details["held_out_images"]) == (32, 8)
    assert details["divergence_after"] < details["divergence_before"] / 2
    wanted, found = (output_moments(m, measured()) for m in (reference, result.model))
    assert details["points"] >= len(wanted) - 1  # the logits only if that helps
    for name in list(wanted)[:-1]:
        np.testing.assert_allclose(found[name][0], wanted[name][0], atol=1e-4)
        # The shrinkage of the ratio leaves a small difference.
        np.testing.assert_allclose(found[name][1], wanted[name][1], rtol=5e-3)


@pytest.mark.parametrize("size", [1, 7, 32])
def test_the_result_does_not_depend_on_the_batch_size(size):
    reference = network()
    results = [
        Recalibrate(IMAGES, reference, batch_size=n)(damaged(reference)).model for n in (size, 64)
    ]
    one, other = ({t.name: numpy_helper.to_array(t) for t in r.graph.initializer} for r in results)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-4, atol=1e-5)


def test_reestimation_without_a_reference_equals_the_oracle():
    model = damaged(network())
    result = Recalibrate(IMAGES)(model)
    assert result.details["method"] == "reestimate"
    assert result.details["images"] == 40
    assert "no reference" in result.details["gate"]
    assert [s.node for s in result.skipped] == [model.graph.node[-1].name]
    stored = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    oracle = training_statistics(model, {"x": IMAGES})
    nodes = {n.name: n for n in result.model.graph.node}
    assert len(oracle) == 4
    for name, (mean, var) in oracle.items():
        np.testing.assert_allclose(stored[nodes[name].input[3]], mean, atol=1e-5)
        np.testing.assert_allclose(stored[nodes[name].input[4]], var, rtol=1e-4)


def test_reestimation_of_folded_layers_needs_the_reference():
    reference = network(bn=False)
    model = damaged(reference)
    result = Recalibrate(IMAGES, reference, "reestimate")(model)
    assert result.details["accepted"]
    assert result.model == Recalibrate(IMAGES, reference, "match")(model).model
    with pytest.raises(OptionError, match="no BatchNormalization; give the float model"):
        Recalibrate(IMAGES)(model)


def test_harm_is_refused():
    reference = network()
    result = Recalibrate(IMAGES, reference)(reference)
    assert not result.modified
    assert result.model == reference
    assert result.model is not reference
    assert result.details["divergence_before"] == 0
    assert not result.details["accepted"]
    assert "did not fall" in result.details["gate"]
    # The stored statistics are 10 % off, so re-estimating them changes the model.
    result = Recalibrate(IMAGES, reference, "reestimate")(reference)
    assert not result.modified
    assert result.details["divergence_after"] > 1e-4


def test_logits_are_matched_only_where_that_helps():
    reference = network()
    result = Recalibrate(IMAGES, reference)(damaged(reference))
    few = Recalibrate(IMAGES[:9], reference)(damaged(reference))
    assert "fewer than 10" in few.details["gate"]
    assert few.details["divergence_before"] is None
    assert few.details["points"] == 4
    assert "nothing to check it on" in few.skipped[-1].reason
    assert result.details["points"] + len(result.skipped) == 5


def test_a_damaged_logit_layer_is_matched():
    reference = network()
    model = onnx.ModelProto()
    model.CopyFrom(reference)
    bias = next(t for t in model.graph.initializer if t.name == model.graph.node[-1].input[2])
    bias.CopyFrom(numpy_helper.from_array(np.arange(5, dtype=np.float32), bias.name))
    result = Recalibrate(IMAGES, reference)(model)
    assert result.details["points"] == 5
    assert result.details["divergence_after"] < 1e-3 < result.details["divergence_before"]


def test_everything_but_initializers_survives():
    reference = network()
    model = damaged(reference)
    model.graph.node[0].doc_string = "first"
    result = Recalibrate(IMAGES, reference)(model)
    assert result.modified
    after = result.model
    onnx.checker.check_model(after, full_check=True)
    names = [[t.name for t in m.graph.initializer] for m in (model, after)]
    assert names[0] == names[1]
    for m in (model, after):
        del m.graph.initializer[:]
    assert model == after


@pytest.mark.parametrize(
    "options", [{"dtype": np.float16}, {"ir": 3, "opset": 14}, {"batch": 7}, {"ir": 10}], ids=str
)
@pytest.mark.parametrize("bn", [True, False], ids=["kept", "folded"])
def test_other_storage(options, bn):
    reference = network(bn, **options)
    model = damaged(reference)
    result = Recalibrate(IMAGES.astype(options.get("dtype", np.float32)), reference)(model)
    onnx.checker.check_model(result.model)
    assert result.modified
    assert result.details["divergence_after"] < result.details["divergence_before"] / 2
    assert result.model.ir_version == options.get("ir", 8)
    for before, after in zip(model.graph.initializer, result.model.graph.initializer, strict=True):
        assert (before.name, before.data_type) == (after.name, after.data_type)


def pruned(model, record=True):
    """Four channels of the last two layers are left."""
    copy = damaged(model, scale=0.05)
    kept = [0, 2, 4, 5]
    nodes = copy.graph.node
    bn = [n for n in nodes if n.op_type == "BatchNormalization"][2]
    convs = [n for n in nodes if n.op_type == "Conv"][2:]
    stored = {t.name: t for t in copy.graph.initializer}
    axes = {convs[0].input[1]: 0, convs[1].input[1]: 0, **dict.fromkeys(bn.input[1:], 0)}
    bn2 = [n for n in nodes if n.op_type == "BatchNormalization"][3]
    axes |= dict.fromkeys(bn2.input[1:], 0)
    axes[nodes[-1].input[1]] = 1
    for name, axis in axes.items():
        value = np.take(numpy_helper.to_array(stored[name]), kept, axis)
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    next(a for a in convs[1].attribute if a.name == "group").i = len(kept)
    del copy.graph.value_info[:]
    if record:
        entry = copy.metadata_props.add()
        entry.key = "onnx_esn.kept"
        entry.value = json.dumps({n.name: kept for n in (*convs, bn, bn2)})
    return copy


def test_a_pruned_model_says_what_it_has_left():
    reference = network()
    model = pruned(reference)
    result = Recalibrate(IMAGES, reference)(model)
    assert result.modified
    wanted, found = (output_moments(m, measured()) for m in (reference, result.model))
    for name in list(wanted)[:-1]:
        kept = slice(None) if len(found[name][0]) == len(wanted[name][0]) else [0, 2, 4, 5]
        np.testing.assert_allclose(found[name][0], wanted[name][0][kept], atol=1e-4)
    # A reference that is itself pruned records the same original channels.
    again = Recalibrate(IMAGES, model)(damaged(model))
    assert again.details["points"] >= 4


def test_a_pruned_model_without_a_record_is_refused():
    reference = network()
    with pytest.raises(OptionError, match=r"has 4 channels, the reference 8.*reestimate"):
        Recalibrate(IMAGES, reference)(pruned(reference, record=False))
    Recalibrate(IMAGES)(pruned(reference, record=False))
    broken = pruned(reference)
    broken.metadata_props[-1].value = "{"
    with pytest.raises(ModelError, match="damaged"):
        Recalibrate(IMAGES, reference)(broken)
    wrong = pruned(reference)
    wrong.metadata_props[-1].value = wrong.metadata_props[-1].value.replace("5", "8")
    with pytest.raises(OptionError, match="does not record"):
        Recalibrate(IMAGES, reference)(wrong)


def test_folded_model_with_a_reference_that_kept_batch_norm():
    reference = network()
    model = onnx.ModelProto()
    model.CopyFrom(reference)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for bn in [n for n in model.graph.node if n.op_type == "BatchNormalization"]:
        conv = next(n for n in model.graph.node if bn.input[0] in n.output)
        gamma, beta, mean, var = (stored[name] for name in bn.input[1:])
        scale = gamma / np.sqrt(var + 1e-5)
        weight = 0.8 * stored[conv.input[1]] * scale[:, None, None, None]
        next(t for t in model.graph.initializer if t.name == conv.input[1]).CopyFrom(
            numpy_helper.from_array(weight.astype(np.float32), conv.input[1])
        )
        bias = (beta - mean * scale).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(bias, f"{conv.name}.b"))
        conv.input.append(f"{conv.name}.b")
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                if name == bn.output[0]:
                    node.input[i] = conv.output[0]
        model.graph.node.remove(bn)
    result = Recalibrate(IMAGES, reference)(model)
    assert result.details["points"] >= 4
    # The weights were only scaled, so that matching restores the reference.
    assert result.details["divergence_after"] < 1e-4 < result.details["divergence_before"]
    # The other way round, a layer cannot stand for a BatchNormalization.
    reverse = Recalibrate(IMAGES, model)(damaged(reference))
    assert "no layer of this name" in reverse.skipped[0].reason


def test_options_that_do_not_fit():
    reference = network()
    with pytest.raises(OptionError, match="--reference"):
        Recalibrate(IMAGES, method="match")(reference)
    with pytest.raises(OptionError, match="neither"):
        Recalibrate(IMAGES, reference, method="wrong")(reference)  # type: ignore[arg-type]
    other = network()
    for node in other.graph.node:
        node.name = f"other_{node.name}"
        for names in (node.input, node.output):
            names[:] = [f"other_{n}" if n.endswith(("_out", "_out1")) else n for n in names]
    other.graph.output[0].name = f"other_{other.graph.output[0].name}"
    with pytest.raises(OptionError, match="no layer of the model can be compared"):
        Recalibrate(IMAGES, other)(reference)
    net = Net(3, 8, 8)
    with pytest.raises(OptionError, match="nothing can be recalibrated"):
        Recalibrate(IMAGES)(net.model(net.relu("x")))
    with pytest.raises(ImageSetError, match="3 x 8 x 8"):
        Recalibrate(IMAGES[:, :, :4], reference)(reference)


def test_a_different_scale_is_skipped():
    reference = network()
    model = damaged(reference)
    bn = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    gamma = next(t for t in model.graph.initializer if t.name == bn.input[1])
    gamma.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(gamma) * 2, gamma.name))
    result = Recalibrate(IMAGES, reference)(model)
    assert (bn.name, "its scale or shift differs from the reference's") in {
        (s.node, s.reason) for s in result.skipped
    }


def test_several_inputs_and_outputs():
    net = Net(3, 8, 8)
    net.input("z", "N", 2, 8, 8)
    y = net.conv_bn_relu(net.op("Concat", "x", "z", axis=1), 5, 6)
    reference = net.model(net.head(y, 6, 4), net.conv(y, 6, 2, name="map"))
    rng = np.random.default_rng(0)
    images = {"x": IMAGES, "z": rng.normal(size=(40, 2, 8, 8)).astype(np.float32)}
    steps = []
    result = Recalibrate(images, reference, progress=lambda *a: steps.append(a))(damaged(reference))
    assert result.details["accepted"]
    assert steps[-1] == ("statistics", 2, 2)
    assert ("reference", 32, 32) in steps


def test_a_path_as_reference(tmp_path):
    onnx.save(network(), tmp_path / "float.onnx")
    result = Recalibrate(IMAGES, tmp_path / "float.onnx")(damaged(network()))
    assert result.modified
