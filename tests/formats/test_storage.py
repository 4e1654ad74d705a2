"""What a written file holds: nothing twice, nothing unread, nothing stale; bytes as promised."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.formats import qdq
from onnx_esn.formats.containers import CONTAINERS
from onnx_esn.formats.storage import file_bytes, tidy
from onnx_esn.graph.external_data import has_data_outside
from onnx_esn.graph.model_file import load_model, save_model
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.verbs import quantize, write_model
from tests.formats.running import run, worst_difference
from tests.net import Net, feeds_for


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def tidied(model):
    copy = copied(model)
    tidy(copy)
    return copy


def names(model):
    return [t.name for t in model.graph.initializer]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.name)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_integers_are_packed_as_onnx_unpacks_them(container, count):
    low, high = container.range
    values = np.resize(np.array([low, high, 0, 1, -1, low + 1, high - 1]), count)
    tensor = container.tensor(values, "t")
    onnx.checker.check_tensor(tensor)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int64), values)
    assert len(tensor.raw_data) == container.size(count)


def test_equal_tensors_are_stored_once():
    net = Net(4, 6, 6)
    y = "x"
    for name in ("a", "b", "c"):
        w = net.weight(4, 4, 3, 3, fan_in=36)
        bias = net.store(np.zeros(4))
        y = net.op("Conv", y, w, bias, pads=[1] * 4, name=name)
    model = net.model(y)
    after = tidied(model)
    assert len(names(model)) == 6
    assert len(names(after)) == 4
    feeds = feeds_for(model, {"x": (2, 4, 6, 6)})
    assert worst_difference(run(model, feeds), run(after, feeds)) == 0


def test_equal_tensors_inside_bodies_are_renamed_too():
    inner = Net(prefix="then_")
    then = inner.body(helper.make_tensor_value_info(inner.op("Add", "x", "q"), 1, ["N", 4]))
    other = Net(prefix="else_")
    otherwise = other.body(helper.make_tensor_value_info(other.op("Sub", "x", "p"), 1, ["N", 4]))
    net = Net(4)
    for name in ("p", "q"):
        net.store(np.arange(4.0), name)
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    y = net.op("If", "flag", then_branch=then, else_branch=otherwise)
    model = net.model(y, shapes={y: ["N", 4]}, types={y: 1})
    after = tidied(model)
    assert names(after) == ["p"]
    for flag in (True, False):
        feeds = {"x": np.ones((2, 4), np.float32), "flag": np.array(flag)}
        assert worst_difference(run(model, feeds), run(after, feeds)) == 0


def test_what_differs_in_type_or_shape_is_not_equal():
    net = Net(1)
    for name, value in (("a", np.zeros(1)), ("b", np.zeros((1, 1)))):
        net.store(value, name)
    net.raw(np.zeros(1, np.int32), "c")
    y = net.op("Add", net.op("Add", "x", "a"), net.op("Add", "b", net.op("Cast", "c", to=1)))
    assert names(tidied(net.model(y))) == ["a", "b", "c"]


def test_outputs_and_defaults_keep_their_names():
    net = Net(2)
    for name in ("a", "b", "c"):
        net.store(np.zeros(2), name)
    y = net.op("Add", net.op("Add", "x", "a"), net.op("Add", "b", "c"))
    model = net.model(y, shapes={y: ["N", 2]})
    model.graph.input.append(net.info("b", 2))
    model.graph.output.append(net.info("c", 2))
    assert names(tidied(model)) == ["a", "b", "c"]


def test_unread_tensors_go_and_unread_layers_stay():
    net = Net(4, 6, 6)
    net.store(np.ones(100), "unread")
    net.op("Constant", value=numpy_helper.from_array(np.ones(3, np.float32)))
    net.conv("x", 4, 6, name="nobody_reads_it")
    model = net.model(net.conv("x", 4, 6, name="a"))
    after = tidied(model)
    assert "unread" not in names(after)
    assert [n.name for n in after.graph.node] == ["nobody_reads_it", "a"]


def test_shapes_that_are_inferred_or_stale_are_not_stored():
    net = Net(4, 6, 6)
    y = net.relu(net.conv("x", 4, 6, name="a"))
    model = net.model(y)
    model.graph.value_info.append(net.info("a_out", "N", 6, 6, 6))
    model.graph.value_info.append(net.info("gone", 1, 2))
    assert not tidied(model).graph.value_info


def test_shapes_that_only_the_model_knows_stay():
    net = Net(4, 6, 6)
    net.domains["their.domain"] = 1
    y = net.op("Strange", net.conv("x", 4, 6, name="a"), domain="their.domain")
    net.declare(y, "N", 6, 6, 6)
    model = net.model(net.conv(y, 6, 3, name="b"), shapes={"b_out": ["N", 3, 6, 6]})
    assert [v.name for v in tidied(model).graph.value_info] == [y]


def test_what_exporters_compute_from_constants_is_stored():
    """Pads put together from the shape of a constant, as traced."""
    net = Net(4, 6, 6)
    size = net.op("Shape", net.op("Constant", value=numpy_helper.from_array(np.ones(4))))
    zeros = net.op("ConstantOfShape", size)
    pads = net.op("Concat", net.op("Cast", zeros, to=TensorProto.INT64), net.ints(0, 0, 1, 2),
                  axis=0)  # fmt: skip
    model = net.model(net.conv(net.op("Pad", "x", pads), 4, 6, name="a"))
    after = tidied(model)
    assert [n.op_type for n in after.graph.node] == ["Pad", "Conv"]
    feeds = feeds_for(model, {"x": (2, 4, 6, 6)})
    assert worst_difference(run(model, feeds), run(after, feeds)) == 0


def test_weights_computed_from_constants_are_not_touched():
    net = Net(4, 6, 6)
    w = net.op("Mul", net.weight(6, 4, 3, 3, fan_in=36), net.vector(6, 1, 1, 1))
    model = net.model(net.op("Conv", "x", w, name="a"))
    assert tidied(model) == model


# Bytes of whole files.


def chain(filters=128, layers=3):
    net = Net(filters, 4, 4)
    y = "x"
    for i in range(layers):
        y = net.relu(net.conv(y, filters, filters, name=f"c{i}"))
    return net.model(net.head(y, filters))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_file_is_little_more_than_its_bits(bits):
    model = quantize(chain(), bits=bits).model
    written = qdq.write(model)
    ideal = inspect(model, groups=False).totals.esn_prime_memory / 8
    floats = (TensorProto.FLOAT,)
    left = sum(len(t.raw_data) for t in written.model.graph.initializer if t.data_type in floats)
    size = len(written.model.SerializeToString())
    assert size == file_bytes(written.model)
    assert ideal + left < size <= 1.05 * (ideal + left)


def test_layers_say_what_they_take():
    written = qdq.write(quantize(chain(), bits=4).model)
    stored = {t.name: len(t.raw_data) for t in written.model.graph.initializer}
    for layer in written.layers[:3]:
        weight = f"{layer.name}.weight"
        assert layer.bytes == stored[f"{weight}_codes"] + stored[f"{weight}_scale"]


# Weights outside of the file.


def test_external_data_is_written_beside_and_read_back(tmp_path):
    model = qdq.write(quantize(chain(), bits=4).model).model
    path = save_model(model, tmp_path / "m.onnx", external=True)
    assert has_data_outside(path)
    first, data = sorted(p.name for p in tmp_path.iterdir())
    assert first == "m.onnx"
    assert re.fullmatch(r"m\.onnx\.[0-9a-f]{16}\.data", data)
    assert path.stat().st_size < 8192
    light = onnx.load(path, load_external_data=False)
    for tensor in light.graph.initializer:
        entries = {e.key: e.value for e in tensor.external_data}
        if entries:
            assert entries["location"] == data
            assert int(entries["offset"]) % (4096 if int(entries["length"]) >= 65536 else 64) == 0
    back = load_model(path)
    for a, b in zip(back.graph.initializer, model.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
    assert list(back.graph.node) == list(model.graph.node)


def test_a_model_that_came_with_external_data_gets_it_again(tmp_path):
    source = chain()
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    save_model(source, inside)
    save_model(source, outside, external=True)
    assert not has_data_outside(inside)
    for path, given, expected in (
        (inside, None, False),
        (outside, None, True),
        (outside, False, False),
        (inside, True, True),
    ):
        target = tmp_path / f"of_{path.stem}_{given}.onnx"
        write_model(source, target, path, external_data=given)
        assert has_data_outside(target) == expected
        back = load_model(target).graph.initializer
        assert [t.raw_data for t in back] == [t.raw_data for t in source.graph.initializer]


def test_values_in_typed_fields_go_outside_as_bytes(tmp_path):
    net = Net(64, 4, 4)
    w = net.rng.normal(size=(64, 64, 3, 3)).astype(np.float32)
    net.tensors.append(helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.reshape(-1).tolist()))
    path = save_model(net.model(net.op("Conv", "x", "w")), tmp_path / "m.onnx", external=True)
    (tensor,) = load_model(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), w)
