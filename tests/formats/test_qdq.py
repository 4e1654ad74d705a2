"""Format qdq: every weight to the last bit, in the narrowest type, with the same figures."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_esn.errors import OptionError
from onnx_esn.formats import qdq
from onnx_esn.formats.options import FormatOptions
from onnx_esn.graph.constants import Constants
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.verbs import quantize
from tests.formats.running import LEVELS, run, worst_difference
from tests.net import Net, feeds_for
from tests.runtime import BEFORE_1_24, NEWEST, needs_opset_25

KEEP = FormatOptions(keep_opset=True)


def small(opset=17, ir=8, **options):
    """Conv, BatchNormalization, depthwise and plain Conv, Gemm: filters of 18 to 72 weights."""
    net = Net(2, 6, 6, opset=opset, ir=ir, **options)
    y = net.conv_bn_relu("x", 2, 8, name="a")
    y = net.conv_bn_relu(y, 8, 8, group=8, name="d")
    y = net.conv_bn_relu(y, 8, 6, name="b")
    return net.model(net.head(y, 6))


def fake(model, bits, quantizer="mid-rise"):
    return quantize(model, bits=bits, quantizer=quantizer).model


def stored_type(written, layer):
    return {x.name: x.type for x in written.layers}[layer]


def assert_same_weights(model, other):
    """Every float initializer of `model` has the same values in `other`, stored or computed."""
    one, two = Constants(model), Constants(other)
    for tensor in model.graph.initializer:
        if tensor.data_type in (1, 10, 11, 16) and tensor.name in two:
            a, b = one.value(tensor.name), two.value(tensor.name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=tensor.name)


def assert_same_figures(model, other, **given):
    a, b = inspect(model, groups=False, **given), inspect(other, groups=False, **given)
    for x, y in zip(a.layers, b.layers, strict=True):
        assert (x.name, x.filter_bits, x.macs) == (y.name, y.filter_bits, y.macs)
        assert (x.esn_a, x.esn_d, x.esn_prime) == (y.esn_a, y.esn_d, y.esn_prime)
    assert a.totals.esn_prime == b.totals.esn_prime


def assert_sound(model, written, size=(2, 2, 6, 6), tolerance=1e-5):
    """Valid, inferred strictly, and the same outputs at every optimization level."""
    onnx.checker.check_model(written, full_check=True)
    onnx.shape_inference.infer_shapes(written, strict_mode=True, data_prop=True)
    feeds = feeds_for(model, {i.name: size for i in model.graph.input})
    for level in LEVELS:
        off = worst_difference(run(model, feeds, level), run(written, feeds, level))
        assert off <= tolerance, level


@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("opset", [None, NEWEST])
def test_every_width(bits, quantizer, opset):
    if quantizer == "mid-tread" and bits == 1:
        pytest.skip("mid-tread has no single bit")
    model = fake(small(), bits, quantizer)
    before = model.SerializeToString(deterministic=True)
    written = qdq.write(model, FormatOptions(opset=opset)).model
    assert model.SerializeToString(deterministic=True) == before
    assert_same_weights(model, written)
    assert_same_figures(model, written)
    assert_sound(model, written)


@pytest.mark.parametrize(
    ("bits", "quantizer", "opset", "expected"),
    [
        (1, "mid-rise", None, ("int4", "int4")),
        pytest.param(1, "mid-rise", 25, ("int2", "int2"), marks=needs_opset_25),
        pytest.param(2, "mid-rise", 25, ("int2", "int2+Add"), marks=needs_opset_25),
        (3, "mid-rise", None, ("int4", "int4")),
        (4, "mid-rise", None, ("int4", "int4+Add")),
        (5, "mid-rise", None, ("int8", "int8")),
        (7, "mid-rise", None, ("int8", "int8")),
        (8, "mid-rise", None, ("int8", "int8+Add")),
        pytest.param(2, "mid-tread", 25, ("int2", "int2"), marks=needs_opset_25),
        (4, "mid-tread", None, ("int4", "int4")),
        (5, "mid-tread", None, ("int8", "int8")),
        (8, "mid-tread", None, ("int8", "int8")),
    ],
)
def test_the_smallest_form_is_taken(bits, quantizer, opset, expected):
    net = Net(8, 6, 6)
    model = fake(net.model(net.conv("x", 8, 64, name="a")), bits, quantizer)
    written = qdq.write(model, FormatOptions(opset=opset))
    (layer,) = written.layers
    assert (layer.type, layer.form) == expected
    width = {"int2": 2, "int4": 4, "int8": 8}[layer.type]
    assert layer.bytes == 64 * 72 * width // 8 + 64 * 4 + (4 * 2 if "x" in layer.form else 0)


def test_the_odd_codes_are_taken_where_the_shifted_ones_need_more_text():
    net = Net(1, 6, 6)
    model = fake(net.model(net.conv("x", 1, 4, name="a")), 4)
    (layer,) = qdq.write(model).layers
    assert layer.form == "int8"  # 36 bytes against 18, and two more nodes


def test_filters_of_other_widths_share_a_tensor():
    net = Net(4, 6, 6)
    w = np.zeros((5, 4, 3, 3), np.float32)
    rng = np.random.default_rng(0)
    for row, bits in enumerate((0, 1, 2, 3, 4)):
        top = 2.0 ** (bits - 1)
        codes = np.floor(rng.uniform(-top, top, (4, 3, 3))) + 0.5
        codes.flat[0] = top - 0.5
        w[row] = float(np.float32(0.37)) * 2.0**row * codes if bits else 0.0
    net.store(w, "w")
    model = net.model(net.op("Conv", "x", "w", name="a"))
    written = qdq.write(model)
    assert written.layers[0].type == "int4"
    assert inspect(written.model, groups=False).layers[0].filter_bits == (0, 1, 2, 3, 4)
    assert_same_weights(model, written.model)
    assert_sound(model, written.model, size=(2, 4, 6, 6))


@needs_opset_25
def test_codes_that_are_multiples_get_a_step_that_is_exact():
    """The codes ±1.5, ±4.5 have the canonical step 3Δ, which may be no float32 number."""
    net = Net(4, 6, 6)
    step = np.float32(0.1)
    codes = np.random.default_rng(0).choice([-3, 3, -9, 9], (6, 4, 3, 3))
    net.store((codes * np.float64(step) / 2).astype(np.float32), "w")
    model = net.model(net.op("Conv", "x", "w", name="a"))
    for options in (FormatOptions(), FormatOptions(opset=25)):
        written = qdq.write(model, options)
        assert not any("exactly" in note for note in written.notes)
        assert_same_weights(model, written.model)


def test_steps_that_are_no_float32_move_weights_by_a_unit_in_the_last_place_and_are_reported():
    net = Net(4, 6, 6)
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (6, 4, 3, 3)) + 0.5
    values = (codes * rng.uniform(0.1, 0.2, (6, 1, 1, 1))).astype(np.float32)
    net.store(values, "w")
    model = net.model(net.op("Conv", "x", "w", name="a"))
    written = qdq.write(model)
    (note,) = (note for note in written.notes if "exactly" in note)
    assert "move by at most 1 unit in the last place" in note
    got = Constants(written.model).value("w")
    np.testing.assert_array_max_ulp(got, values, maxulp=1)
    assert (got != values).any()
    assert_same_figures(model, written.model)


# Layers of every kind, in graphs of their own.


def transposed_conv(groups):
    def build():
        net = Net(8, 5, 5)
        return net.model(net.deconv("x", 8, 12, 3, group=groups, strides=[1, 1], name="a"))

    return build


def gemm(trans):
    def build():
        net = Net(24, batch=2)
        w = net.weight(*((10, 24) if trans else (24, 10)), fan_in=24)
        return net.model(net.op("Gemm", "x", w, transB=trans, name="a"))

    return build


def matmul(right):
    def build():
        net = Net(24, 24, batch=2)
        w = net.weight(24, 24, fan_in=24)
        return net.model(net.op("MatMul", *(("x", w) if right else (w, "x")), name="a"))

    return build


def moved():
    net = Net(4, 5, 5)
    w = net.op("Transpose", net.weight(36, 10, fan_in=36), perm=[1, 0])
    w = net.reshape(w, 10, 4, 3, 3)
    return net.model(net.op("Conv", "x", w, name="a"))


def from_constant_node():
    net = Net(4, 5, 5)
    value = numpy_helper.from_array(net.rng.normal(size=(10, 4, 3, 3)).astype(np.float32))
    return net.model(net.op("Conv", "x", net.op("Constant", value=value), name="a"))


def shared():
    net = Net(6, 5, 5)
    w = net.weight(6, 6, 3, 3, fan_in=54)
    y = net.op("Conv", "x", w, pads=[1] * 4, name="a")
    return net.model(net.op("Conv", net.relu(y), w, pads=[1] * 4, name="b"))


def single_filter():
    net = Net(4, 5, 5)
    return net.model(net.conv("x", 4, 1, name="a"))


def grouped():
    net = Net(8, 5, 5)
    return net.model(net.conv("x", 8, 12, group=4, name="a"))


def inputs_and_initializers():
    net = Net(4, 5, 5, ir=3)
    return net.model(net.conv("x", 4, 6, name="a"))


def double():
    net = Net(24, 24, batch=2, dtype=np.float64)
    return net.model(net.op("MatMul", "x", net.weight(24, 24, fan_in=24), name="a"))


KINDS = {
    "transposed": (transposed_conv(1), (2, 8, 5, 5)),
    "transposed grouped": (transposed_conv(2), (2, 8, 5, 5)),
    "gemm transB=0": (gemm(0), (2, 24)),
    "gemm transB=1": (gemm(1), (2, 24)),
    "matmul right": (matmul(True), (2, 24, 24)),
    "matmul left": (matmul(False), (2, 24, 24)),
    "moved": (moved, (2, 4, 5, 5)),
    "constant node": (from_constant_node, (2, 4, 5, 5)),
    "shared": (shared, (2, 6, 5, 5)),
    "single filter": (single_filter, (2, 4, 5, 5)),
    "grouped": (grouped, (2, 8, 5, 5)),
    "old IR version": (inputs_and_initializers, (2, 4, 5, 5)),
    "double": (double, (2, 24, 24)),
}


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("options", [FormatOptions(), KEEP], ids=["raised", "kept"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind, bits, options):
    build, size = KINDS[kind]
    model = fake(build(), bits)
    written = qdq.write(model, options)
    assert all(x.type in ("int4", "int8", "int16") for x in written.layers), written.layers
    assert_same_weights(model, written.model)
    assert_same_figures(model, written.model)
    assert_sound(model, written.model, size)


def test_filters_along_two_axes_need_no_more_scales_than_filters():
    model = fake(transposed_conv(2)(), 8)
    written = qdq.write(model)
    scale = next(t for t in written.model.graph.initializer if t.name.endswith("_scale"))
    assert int(np.prod(scale.dims)) == 12
    assert [n.op_type for n in written.model.graph.node][-2:] == ["Reshape", "ConvTranspose"]


def test_a_shared_weight_is_counted_once():
    a, b = qdq.write(fake(shared(), 4)).layers
    assert a.bytes > 0
    assert b.bytes == 0
    assert "a" in b.reason


@pytest.mark.parametrize("build", [matmul(True), gemm(0), gemm(1)])
def test_before_a_matrix_product_stands_no_dequantize_linear(build):
    """onnxruntime would make MatMulNBits of the two, which rounds activations to eight bits."""
    written = qdq.write(fake(build(), 3)).model
    assert [n.op_type for n in written.graph.node][:2] == ["DequantizeLinear", "Mul"]


def test_nor_where_another_node_multiplies_with_the_weight():
    net = Net(8, 8, batch=2)
    w = net.weight(8, 8, 1, 1, fan_in=8)
    y = net.op("Conv", net.op("Unsqueeze", "x", net.ints(3)), w, name="a")
    model = fake(net.model(y), 3)
    model.graph.node.add(op_type="MatMul", input=["x", "w2"], output=["z"])
    model.graph.node.add(op_type="Squeeze", input=[w], output=["w2"])
    model.graph.node.insert(0, model.graph.node.pop())
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 8, 8]))
    written = qdq.write(model).model
    assert [n.op_type for n in written.graph.node][:2] == ["DequantizeLinear", "Mul"]
    assert_sound(model, written, (2, 8, 8))


@pytest.mark.parametrize(
    "dtype", [np.float16, onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)]
)
@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("options", [FormatOptions(), KEEP], ids=["raised", "kept"])
def test_half_types_stay_and_are_exact(dtype, bits, options):
    opset, ir = (22, 10) if dtype is not np.float16 else (17, 8)  # no bfloat16 in Conv before
    model = fake(small(opset, ir, dtype=dtype), bits)
    written = qdq.write(model, options)
    assert {x.type for x in written.layers} <= {"int4", "int8"}
    assert_same_weights(model, written.model)
    assert_same_figures(model, written.model)
    onnx.checker.check_model(written.model, full_check=True)


# Operator sets and IR versions.


def test_the_operator_set_is_raised_for_four_bits_only():
    assert qdq.write(fake(small(), 8)).model.opset_import[0].version == 17
    written = qdq.write(fake(small(), 3))
    assert written.model.opset_import[0].version == 21
    assert written.model.ir_version == 10
    assert any("operator set raised from 17 to 21 for int4" in note for note in written.notes)
    assert any("IR version raised from 8 to 10" in note for note in written.notes)


@needs_opset_25
def test_two_bits_only_where_asked_for():
    assert stored_type(qdq.write(fake(small(), 1)), "b") == "int4"
    written = qdq.write(fake(small(), 1), FormatOptions(opset=25))
    assert stored_type(written, "b") == "int2"
    assert written.model.ir_version == 13


def test_a_kept_operator_set_gets_eight_bits():
    written = qdq.write(fake(small(), 3), KEEP)
    assert written.model.opset_import[0].version == 17
    assert {x.type for x in written.layers} == {"int8"}
    assert written.model.ir_version == 8


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 18, 19, 20, 21, 22, NEWEST])
def test_operator_sets(opset):
    model = fake(small(opset=opset, ir=8 if opset < 21 else 10), 8)
    written = qdq.write(model).model
    assert_same_weights(model, written)
    assert_sound(model, written)
    assert written.opset_import[0].version == (13 if opset == 9 else opset)


def test_an_operator_set_without_dequantize_linear_is_refused_if_it_must_stay():
    with pytest.raises(OptionError, match="needs operator set 10 and the model has 9"):
        qdq.write(fake(small(opset=9), 8), KEEP)


def test_an_operator_set_is_never_lowered():
    with pytest.raises(OptionError, match="has operator set 17, not 13"):
        qdq.write(fake(small(), 8), FormatOptions(opset=13))
    with pytest.raises(OptionError, match="--keep-opset"):
        qdq.write(fake(small(), 8), FormatOptions(keep_opset=True, opset=21))


@pytest.mark.skipif(BEFORE_1_24, reason="this onnxruntime runs the model at 21, too")
def test_where_the_operator_set_cannot_be_raised_it_stays_and_the_notes_say_so():
    net = Net(3, 6, 6)
    net.domains["com.microsoft"] = 1
    scale, zero = net.store(np.array(0.05)), net.raw(np.array(3, np.int8))
    y = net.op("Transpose", net.conv("x", 3, 8, name="a"), perm=[0, 2, 3, 1])
    y = net.op("QuantizeLinear", y, scale, zero)
    y = net.op("NhwcMaxPool", y, domain="com.microsoft", kernel_shape=[2, 2], strides=[2, 2])
    net.declared.append(net.info(y, "N", 3, 3, 8, dtype=np.int8))
    y = net.op("Transpose", net.op("DequantizeLinear", y, scale, zero), perm=[0, 3, 1, 2])
    model = fake(net.model(net.head(net.conv(y, 8, 6, name="b"), 6)), 3)
    written = qdq.write(model)
    assert written.model.opset_import[0].version == 17
    assert any("cannot be raised to 21" in note for note in written.notes)
    assert {x.type for x in written.layers} == {"int8"}
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert worst_difference(run(model, feeds, "all"), run(written.model, feeds, "all")) <= 1e-5


# What stays.


def test_layers_off_the_grid_stay_and_are_named():
    model = quantize(small(), bits=4, exclude=["b"]).model
    written = qdq.write(model)
    entry = next(x for x in written.layers if x.name == "b")
    assert (entry.form, entry.type) == ("float", "float32")
    assert "no grid" in entry.reason
    assert_same_weights(model, written.model)


def test_nothing_on_a_grid_changes_nothing_but_storage():
    model = small()
    written = qdq.write(model)
    assert written.forms() == {"float": 4}
    assert written.model.opset_import[0].version == 17


def test_weights_inside_bodies_stay_and_are_named():
    inner = Net(prefix="then_")
    y = inner.op("Conv", "pre", inner.weight(6, 8, 1, 1, fan_in=8))
    then = inner.body(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 6, 6, 6]))
    other = Net(prefix="else_")
    z = other.op("Conv", "pre", other.weight(6, 8, 1, 1, fan_in=8))
    otherwise = other.body(helper.make_tensor_value_info(z, TensorProto.FLOAT, ["N", 6, 6, 6]))
    net = Net(3, 6, 6)
    net.op("Identity", net.conv("x", 3, 8, name="a"), name="pre")
    net.nodes[-1].output[0] = "pre"
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    y = net.op("If", "flag", then_branch=then, else_branch=otherwise, name="choice")
    model = fake(net.model(y, shapes={y: ["N", 6, 6, 6]}, types={y: TensorProto.FLOAT}), 3)
    written = qdq.write(model)
    assert [x.name for x in written.layers] == ["a"]
    assert any("If 'choice': the 2 layers inside keep their floats" in n for n in written.notes)
    branch = next(n for n in written.model.graph.node if n.op_type == "If").attribute[0].g
    assert branch == next(n for n in model.graph.node if n.op_type == "If").attribute[0].g


def test_names_and_node_metadata_stay():
    model = fake(small(ir=10), 4)
    node = next(n for n in model.graph.node if n.name == "b")
    node.metadata_props.add(key="their.key", value="1")
    node.doc_string = "theirs"
    written = qdq.write(model).model
    after = next(n for n in written.graph.node if n.name == "b")
    assert after == node
    assert [i.name for i in written.graph.input] == ["x"]
    assert written.producer_name == model.producer_name
    assert list(written.metadata_props) == list(model.metadata_props)


def test_names_that_are_taken_are_left_alone():
    model = fake(small(), 4)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.name = "b.weight"
            break
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    old = "b.weight_codes"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [old if n == "batchnormalization_1_out" else n for n in names]
    written = qdq.write(model).model
    made = [o for n in written.graph.node for o in n.output]
    assert len(made) == len(set(made))
    assert_same_figures(model, written)
    assert_sound(model, written)


def test_the_reference_evaluator_agrees():
    model = fake(small(), 4)
    written = qdq.write(model).model
    feeds = feeds_for(model, {"x": (2, 2, 6, 6)})
    expected = run(model, feeds, "disabled")
    got = dict(zip(expected, ReferenceEvaluator(written).run(None, feeds), strict=True))
    assert worst_difference(expected, got) <= 1e-5


def test_writing_twice_gives_the_same_bytes():
    model = fake(small(), 4)
    first = qdq.write(model).model.SerializeToString(deterministic=True)
    assert qdq.write(model).model.SerializeToString(deterministic=True) == first


def test_openvino_reads_it(tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra: interop)")
    model = fake(small(), 4)
    written = qdq.write(model).model
    path = tmp_path / "q.onnx"
    onnx.save(written, path)
    feeds = feeds_for(model, {"x": (2, 2, 6, 6)})
    expected = run(model, feeds, "disabled")
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", config)
    got = dict(zip(expected, compiled(feeds).values(), strict=True))
    assert worst_difference(expected, got) <= 1e-5


def test_four_weights_in_float64_are_recognised_as_before():
    """They lie on a grid by their 53 bits; the integers behind them pass through float32."""
    net = Net(2, 6, 6, dtype=np.float64)
    step = np.array([[[[0.3]]], [[[0.7]]]], np.float32).astype(np.float64)
    net.store(step * np.array([[0.5, 61.5], [-3.5, 62.5]]).reshape(2, 2, 1, 1), "w")
    model = net.model(net.op("Conv", "x", "w", name="a"))
    assert inspect(model, groups=False).layers[0].filter_bits == (7, 7)
    written = qdq.write(model).model
    assert_same_figures(model, written)
    assert_same_weights(model, written)


def test_the_operator_set_is_not_raised_for_the_text_of_nodes():
    """In float16 the forms at operator set 19 have a node less, which is no reason to raise it."""
    net = Net(2, 6, 6, dtype=np.float16)
    model = fake(net.model(net.conv("x", 2, 4, name="a")), 6)
    assert qdq.write(model).model.opset_import[0].version == 17
