"""Raising the operator set: nodes stay, outputs stay, and the table agrees with the schemas."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.graph.opset import OpsetError, raise_opset
from onnx_esn.graph.opset_changes import COMPATIBLE_SINCE, HIGHEST
from tests.formats.running import run, worst_difference
from tests.net import Net, feeds_for
from tests.runtime import loads_opset

NEWEST = min(HIGHEST, onnx.defs.onnx_opset_version())


def schemas(op):
    """All versions of an operator, oldest first."""
    found = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and not s.domain]
    return sorted(found, key=lambda s: s.since_version)


@pytest.mark.parametrize("op", COMPATIBLE_SINCE)
def test_the_table_agrees_with_the_installed_schemas(op):
    """What an older version says is still there, in its place, and what is new may be left out."""
    versions = [s for s in schemas(op) if COMPATIBLE_SINCE[op] <= s.since_version <= NEWEST]
    assert versions, f"{op} has no version from {COMPATIBLE_SINCE[op]} on"
    optional = onnx.defs.OpSchema.FormalParameterOption.Single
    for old, new in itertools.pairwise(versions):
        for name, attribute in old.attributes.items():
            assert name in new.attributes, name
            after = new.attributes[name]
            assert after.type == attribute.type
            assert after.default_value == attribute.default_value, name
        for name in new.attributes.keys() - old.attributes.keys():
            assert not new.attributes[name].required, name
        for a, b in zip(old.inputs, new.inputs, strict=False):
            assert (a.option == b.option) or a.option == optional, a.name
        for added in new.inputs[len(old.inputs) :]:
            assert added.option != optional, added.name


def at_seventeen(build, **options):
    net = Net(4, 8, 8, **{"opset": 17, **options})
    return net.model(*build(net))


def reductions(net):
    y = net.op("ReduceMean", net.conv("x", 4, 6), axes=[2, 3], keepdims=0)
    return [net.gemm(y, 6, 3)]


def halves(net):
    parts = net.op("Split", net.conv("x", 4, 6), outputs=2, axis=1)
    return [net.op("Add", *parts)]


def thirds(net):
    parts = net.op("Split", net.conv("x", 4, 6), net.ints(2, 2, 2), outputs=3, axis=1)
    return [net.op("Sum", *parts)]


def softmax(net):
    return [net.op("Softmax", net.conv("x", 4, 6), axis=1)]


@pytest.mark.parametrize("build", [reductions, halves, thirds, softmax])
@pytest.mark.parametrize("to", [18, 21, NEWEST])
def test_without_the_converter(build, to):
    if not loads_opset(to):
        pytest.skip(f"operator set {to} is too new for this onnxruntime")
    model = at_seventeen(build)
    result, doubtful = raise_opset(model, to)
    assert doubtful == ()
    assert result.opset_import[0].version == to
    assert model.opset_import[0].version == 17
    onnx.checker.check_model(result, full_check=True)
    assert [n.name for n in result.graph.node] == [n.name for n in model.graph.node]
    feeds = feeds_for(model, {"x": (2, 4, 8, 8)})
    assert worst_difference(run(model, feeds), run(result, feeds)) == 0


def test_nodes_that_mean_the_same_stay_as_they_are():
    model = at_seventeen(lambda net: [net.head(net.conv_bn_relu("x", 4, 6), 6)], ir=10)
    model.graph.node[0].metadata_props.add(key="k", value="v")
    result, _ = raise_opset(model, 21)
    assert list(result.graph.node) == list(model.graph.node)
    assert list(result.graph.initializer) == list(model.graph.initializer)
    assert result.ir_version == model.ir_version


def test_axes_of_squeeze_become_an_input():
    def build(net):
        y = net.op("GlobalAveragePool", net.conv("x", 4, 6))
        return [net.gemm(net.op("Squeeze", y, axes=[2, 3]), 6, 3)]

    model = at_seventeen(build, opset=11)
    result, doubtful = raise_opset(model, 21)
    assert doubtful == ()
    feeds = feeds_for(model, {"x": (2, 4, 8, 8)})
    assert worst_difference(run(model, feeds), run(result, feeds)) == 0


def squeezed(net):
    y = net.op("GlobalAveragePool", net.conv("x", 4, 6))
    return [net.gemm(net.op("Squeeze", y, axes=[2, 3]), 6, 3)]


def parted(net):
    parts = net.op("Split", net.conv("x", 4, 6), outputs=2, axis=1, split=[2, 4])
    return [net.gemm(net.op("Flatten", net.op("GlobalMaxPool", parts[1])), 4, 3)]


def flattened(net):
    """Softmax of operator set 11 flattens: onnx's converter takes over."""
    y = net.op("Unsqueeze", net.conv("x", 4, 6), axes=[4])
    return [net.op("Softmax", y, axis=1)]


@pytest.mark.parametrize("build", [squeezed, parted, flattened])
def test_before_ir_4_stored_tensors_are_inputs_too(build):
    model = at_seventeen(build, opset=11, ir=3)
    result, _ = raise_opset(model, 13)
    assert result.ir_version == 3
    onnx.checker.check_model(result, full_check=True)
    declared = [info.name for info in result.graph.input]
    assert {t.name for t in result.graph.initializer} <= set(declared)
    assert len(declared) == len(set(declared))
    feeds = feeds_for(model, {"x": (2, 4, 8, 8)})
    assert worst_difference(run(model, feeds), run(result, feeds)) == 0


def test_before_ir_4_a_branch_reads_what_is_stored_outside():
    """A body has no inputs, so it cannot have stored tensors either."""
    net = Net(4, 8, 8, opset=11, ir=3)
    y = net.op("GlobalAveragePool", net.conv("x", 4, 6))
    bodies = []
    for prefix in ("a.", "b."):
        inner = Net(opset=11, prefix=prefix)
        out = inner.info(inner.op("Squeeze", y, axes=[2, 3]), 2, 6)
        bodies.append(inner.body(out))
    flag = net.op("Greater", net.op("ReduceSum", y, keepdims=0), net.raw(np.float32(0)))
    out = net.op("If", flag, then_branch=bodies[0], else_branch=bodies[1])
    model = net.model(net.gemm(out, 6, 3))
    result, _ = raise_opset(model, 13)
    onnx.checker.check_model(result)
    feeds = feeds_for(model, {"x": (2, 4, 8, 8)})
    assert worst_difference(run(model, feeds), run(result, feeds)) == 0


def test_the_converter_takes_the_rest_and_loses_nothing():
    """Softmax of operator set 11 flattens; metadata is what onnx's converter drops."""
    model = at_seventeen(
        lambda net: [net.op("Softmax", net.conv("x", 4, 6, name="a"), axis=1)], opset=11, ir=10
    )
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.metadata_props.add(key="their", value="own")
    result, doubtful = raise_opset(model, 21)
    assert doubtful == ("Softmax",)
    conv = next(n for n in result.graph.node if n.op_type == "Conv")
    assert [p.key for p in conv.metadata_props] == ["k"]
    assert list(result.metadata_props) == list(model.metadata_props)
    assert list(result.graph.initializer)[: len(model.graph.initializer)] == list(
        model.graph.initializer
    )
    feeds = feeds_for(model, {"x": (2, 4, 8, 8)})
    assert worst_difference(run(model, feeds), run(result, feeds)) <= 1e-6


def test_quantized_activations_are_to_be_checked():
    def build(net):
        scale, zero = net.store(np.array(0.05)), net.raw(np.array(3, np.int8))
        y = net.op("QuantizeLinear", net.conv("x", 4, 6), scale, zero)
        return [net.op("DequantizeLinear", y, scale, zero)]

    assert raise_opset(at_seventeen(build), 21)[1] == ("DequantizeLinear", "QuantizeLinear")


def test_bodies_are_looked_at():
    inner = Net(prefix="then_", opset=17)
    y = inner.op("ReduceMean", "pre", axes=[1], keepdims=1)
    then = inner.body(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 1, 8, 8]))
    other = Net(prefix="else_", opset=17)
    z = other.op("ReduceMax", "pre", axes=[1], keepdims=1)
    otherwise = other.body(helper.make_tensor_value_info(z, TensorProto.FLOAT, ["N", 1, 8, 8]))
    net = Net(4, 8, 8, opset=17)
    net.op("Identity", "x", name="pre")
    net.nodes[-1].output[0] = "pre"
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    y = net.op("If", "flag", then_branch=then, else_branch=otherwise)
    model = net.model(y, shapes={y: ["N", 1, 8, 8]}, types={y: TensorProto.FLOAT})
    result, doubtful = raise_opset(model, 21)
    assert doubtful == ()
    onnx.checker.check_model(result, full_check=True)
    for flag in (True, False):
        feeds = {"x": np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)}
        feeds["flag"] = np.array(flag)
        assert worst_difference(run(model, feeds), run(result, feeds)) == 0


def test_what_is_too_high_is_refused():
    model = at_seventeen(softmax)
    with pytest.raises(OpsetError, match="is the highest"):
        raise_opset(model, 99)


def test_what_the_converter_cannot_do_is_refused():
    net = Net(4, 8, 8, batch=2, opset=6)
    y = net.op("Gemm", "x", net.weight(4, 8, 8, fan_in=8), net.vector(8))
    model = net.model(y, shapes={y: [2, 4, 8, 8]})
    with pytest.raises(OpsetError, match="operator set 6 cannot be raised to 21: adapt_gemm"):
        raise_opset(model, 21)
