"""Hostile models, continued: stored tensors that cannot be."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.models import hostile, saved
from tests.hostile.verbs import SHAPE, sound_model
from tests.net import Net


def _tensor(folder, change, index=0):
    model = sound_model()
    change(model.graph.initializer[index])
    return saved(model, folder)


@hostile("bytes")
def too_few_bytes(folder):
    return _tensor(folder, lambda t: setattr(t, "raw_data", t.raw_data[:-5]))


@hostile("bytes")
def too_many_bytes(folder):
    return _tensor(folder, lambda t: setattr(t, "raw_data", t.raw_data + bytes(4)))


@hostile("0 bytes")
def huge_without_data(folder):
    return _tensor(folder, lambda t: (t.dims.__setitem__(0, 2**40), t.ClearField("raw_data")))


@hostile("bytes")
def huge_with_little_data(folder):
    return _tensor(folder, lambda t: t.dims.__setitem__(0, 2**40))


@hostile("bytes")
def sizes_whose_product_overflows(folder):
    return _tensor(folder, lambda t: t.dims.__setitem__(slice(None), [2**33, 2**31, 3, 3]))


@hostile("negative")
def negative_sizes(folder):
    return _tensor(folder, lambda t: t.dims.__setitem__(slice(0, 2), [-8, -3]))


@hostile("type")
def unknown_type(folder):
    return _tensor(folder, lambda t: setattr(t, "data_type", 77))


@hostile("type")
def no_type(folder):
    return _tensor(folder, lambda t: setattr(t, "data_type", 0))


@hostile()
def text_weights(folder):
    def change(t):
        count = int(np.prod(t.dims))
        t.ClearField("raw_data")
        t.data_type = TensorProto.STRING
        t.string_data.extend([b"1.0"] * count)

    return _tensor(folder, change)


@hostile()
def complex_weights(folder):
    return _tensor(
        folder,
        lambda t: t.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(t).astype(np.complex64), t.name)
        ),
    )


def _kind(name):
    def build(folder):
        model = sound_model()
        weight = model.graph.initializer[0]
        values = numpy_helper.to_array(weight)
        weight.CopyFrom(
            helper.make_tensor(
                weight.name,
                getattr(TensorProto, name),
                list(weight.dims),
                np.clip(np.rint(values), -1, 1).reshape(-1),
            )
        )
        return saved(model, folder)

    build.__name__ = f"weights_of_{name.lower()}"
    return build


for _name in ("INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1", "BOOL", "INT8", "INT64"):
    hostile()(_kind(_name))


@hostile()
def not_a_number(folder):
    model = sound_model()
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return saved(model, folder)


@hostile()
def infinite(folder):
    model = sound_model()
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = -np.inf
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return saved(model, folder)


@hostile()
def infinite_variance(folder):
    model = sound_model()
    node = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    stored = {t.name: t for t in model.graph.initializer}
    variance = stored[node.input[4]]
    values = numpy_helper.to_array(variance).copy()
    values[:3] = np.inf, np.nan, -4.0
    variance.CopyFrom(numpy_helper.from_array(values, variance.name))
    return saved(model, folder)


@hostile()
def largest_numbers(folder):
    model = sound_model()
    weight = model.graph.initializer[0]
    values = np.full_like(numpy_helper.to_array(weight), np.finfo(np.float32).max)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return saved(model, folder)


@hostile()
def smallest_numbers(folder):
    model = sound_model()
    weight = model.graph.initializer[0]
    values = np.full_like(numpy_helper.to_array(weight), 1e-45)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return saved(model, folder)


@hostile()
def no_filters(folder):
    net = Net(*SHAPE)
    y = net.op("Conv", "x", net.store(np.zeros((0, 3, 3, 3))), name="none")
    return saved(net.model(net.relu(y), shapes={"relu_1_out": ["N", 0, 4, 4]}), folder)


@hostile()
def no_filters_among_others(folder):
    net = Net(*SHAPE)
    y = net.conv("x", 3, 8, name="a")
    z = net.op("Conv", y, net.store(np.zeros((0, 8, 3, 3))), pads=[1] * 4, name="none")
    y = net.op("Concat", y, z, axis=1)
    return saved(net.model(net.head(net.relu(y), 8)), folder)


@hostile()
def no_input_channels(folder):
    net = Net(*SHAPE)
    y = net.op("Conv", "x", net.store(np.zeros((8, 0, 3, 3))), name="none")
    return saved(net.model(net.relu(y), shapes={"relu_1_out": ["N", 8, 4, 4]}), folder)


@hostile()
def empty_kernel(folder):
    net = Net(*SHAPE)
    y = net.op("Conv", "x", net.store(np.zeros((8, 3, 0, 0))), name="none")
    return saved(net.model(net.relu(y), shapes={"relu_1_out": ["N", 8, 4, 4]}), folder)


@hostile()
def empty_vectors(folder):
    model = sound_model()
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(0, np.float32), tensor.name))
    return saved(model, folder)


@hostile()
def a_scalar_for_a_weight(folder):
    model = sound_model()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.float32(1), weight.name))
    return saved(model, folder)


@hostile()
def groups_that_do_not_divide(folder):
    model = sound_model()
    model.graph.node[0].attribute.append(helper.make_attribute("group", 5))
    return saved(model, folder)


@hostile()
def absurd_attributes(folder):
    model = sound_model()
    for node in model.graph.node:
        for a in node.attribute:
            if a.name in ("pads", "kernel_shape", "strides", "dilations"):
                a.ints[:] = [2**62] * len(a.ints)
            if a.name == "group":
                a.i = 0
    return saved(model, folder)


@hostile()
def negative_strides(folder):
    model = sound_model()
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [-1, 0]))
    return saved(model, folder)


@hostile("dilations has 1 numbers")
def dilations_of_another_rank(folder):
    model = sound_model()
    model.graph.node[0].attribute.append(helper.make_attribute("dilations", [1]))
    return saved(model, folder)


@hostile()
def attributes_twice(folder):
    model = sound_model()
    model.graph.node[0].attribute.extend(list(model.graph.node[0].attribute))
    return saved(model, folder)


@hostile()
def attributes_of_another_type(folder):
    model = sound_model()
    for a in model.graph.node[0].attribute:
        name = a.name
        a.Clear()
        a.CopyFrom(helper.make_attribute(name, "text"))
    return saved(model, folder)
