"""Tiny graphs, continued: how files differ: versions, names, types, storage, odd interfaces."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import MODELS, Case, graph, stem
from tests.models_blocks import tail
from tests.net import Net

# Versions.


def _at_opset(opset, ir):
    """A residual block whose operators all versions have, written as the version wants it."""
    net = Net(3, 6, 6, opset=opset, ir=ir)
    x = stem(net)
    y = net.conv_bn_relu(x, 8, 6, name="b")
    y = net.relu(net.op("Add", x, net.bn(net.conv(y, 6, 8), 8)))
    sizes = ([3, 5], {"axis": 1})
    if opset < 13:
        u, v = net.op("Split", y, outputs=2, split=sizes[0], **sizes[1])
    else:
        u, v = net.op("Split", y, net.ints(*sizes[0]), outputs=2, **sizes[1])
    y = net.op("Concat", v, u, axis=1)
    if opset < 18:
        y = net.op("ReduceMean", y, axes=[2, 3], keepdims=0)
    else:
        y = net.op("ReduceMean", y, net.ints(2, 3), keepdims=0)
    y = net.op("Dropout", net.gemm(y, 8, 6, name="fc"))
    return net.model(net.op("Softmax", net.gemm(y, 6, 3), axis=1))


for _opset, _ir in (
    (7, 3),
    (8, 3),
    (9, 4),
    (11, 6),
    (13, 7),
    (16, 8),
    (18, 8),
    (19, 9),
    (21, 10),
    (23, 11),
):
    MODELS[f"opset_{_opset}"] = Case(lambda o=_opset, i=_ir: _at_opset(o, i), ("a", "b", "fc"), "")


# Names.


@graph()
def nodes_without_names():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6)
    model = net.model(net.head(y, 6))
    for node in model.graph.node:
        node.ClearField("name")
    return model


@graph("a", "b")
def odd_names():
    """Slashes, colons, blanks, accents, digits, and names that end like the ones we would make."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b")
    y = net.reshape(net.op("GlobalAveragePool", y), 0, 6)
    model = net.model(net.gemm(y, 6, 3))
    odd = ["/stem/conv/Conv_output_0", "12", "größe : 1", "t0_", "a.weight", "_", "x y", "Ω", "#"]
    names = [n for node in model.graph.node for n in node.output][:-1]
    table = dict(zip(names, odd, strict=False))
    table |= {t.name: f"{i}::{t.name}/" for i, t in enumerate(model.graph.initializer)}
    for node in model.graph.node:
        node.input[:] = [table.get(n, n) for n in node.input]
        node.output[:] = [table.get(n, n) for n in node.output]
    for tensor in model.graph.initializer:
        tensor.name = table[tensor.name]
    return model


@graph("a", "b")
def names_that_we_would_choose():
    """A Reshape that has to be mended, and tensors that already carry the names of what we add."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.op("Reshape", x, net.ints(-1, 2, 4, 36), name="r")
    taken = net.store(np.array(1.0), "r_out_shape")
    y = net.reshape(net.op("Mul", y, taken), -1, 8, 6, 6)
    u, v = net.op("Split", y, net.ints(4, 4), outputs=2, axis=1, name="s")
    y = net.op("Mul", net.op("Concat", v, u, axis=1), net.store(np.array(1.0), "s_out_split"))
    return tail(net, net.conv_bn_relu(y, 8, 8, name="b"))


# Storage.


@graph("a", "b")
def unused_initializers():
    net = Net(3, 6, 6)
    net.weight(8, 8, 3, 3, fan_in=72, name="nobody reads this")
    return tail(net, net.conv_bn_relu(stem(net), 8, 8, name="b"))


@graph("a", "b")
def unused_nodes():
    """A layer that leads nowhere."""
    net = Net(3, 6, 6)
    x = stem(net)
    net.conv_bn_relu(x, 8, 5, name="b")
    net.reshape(x, 0, 2, 4, 36)
    return tail(net, x)


@graph("a", "b")
def default_values_of_inputs():
    """Some initializers are inputs too, others are not."""
    net = Net(3, 6, 6)
    model = tail(net, net.conv_bn_relu(stem(net), 8, 8, name="b"))
    for tensor in list(model.graph.initializer)[::2]:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return model


@graph("a", "z")
def sparse_constants():
    """A sparse weight in the initializers, and one in a Constant node."""
    net = Net(3, 6, 6)
    x = stem(net)
    values = numpy_helper.from_array(net.rng.normal(size=40).astype(np.float32), "s")
    at = np.sort(net.rng.permutation(6 * 8)[:40])
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(at, "i"), [6, 8])
    w = net.op("Constant", sparse_value=sparse)
    w = net.op("Unsqueeze", w, net.ints(2, 3))
    return tail(net, net.relu(net.op("Conv", x, w, name="s")), 6)


@graph("a", "b")
def constants_of_every_kind():
    """Constant nodes with a value of each form."""
    net = Net(3, 6, 6)
    y = net.op("Mul", stem(net), net.op("Constant", value_float=0.5))
    y = net.op("Add", y, net.op("Constant", value_floats=[0.25]))
    target = net.op("Constant", value_ints=[0, 2, 4, 36])
    y = net.op("Reshape", net.op("Reshape", y, target), net.op("Constant", value_ints=[0, 8, 6, 6]))
    y = net.op("Gather", y, net.op("Constant", value_ints=list(range(8))), axis=1)
    return tail(net, net.conv_bn_relu(y, 8, 8, name="b"))


@graph("a", "b")
def weight_through_many_nodes():
    """Identity, Cast, Transpose, Reshape, Unsqueeze, one after another."""
    net = Net(3, 6, 6)
    w = net.op("Identity", net.raw(net.rng.normal(size=(72, 6)).astype(np.float16)))
    w = net.op("Transpose", net.op("Cast", w, to=TensorProto.FLOAT), perm=[1, 0])
    w = net.reshape(w, 6, 8, 9)
    w = net.reshape(net.op("Unsqueeze", w, net.ints(3)), 6, 8, 3, 3)
    bias = net.op("Squeeze", net.op("Mul", net.vector(6, 1), net.vector(1)), net.ints(1))
    return tail(net, net.op("Conv", stem(net), w, bias, pads=[1] * 4, name="b"), 6)


@graph("a", "b", "c")
def weight_shared_by_two_layouts():
    """A tied autoencoder: the second layer reads the first one's weight, transposed."""
    net = Net(3, 4, 4)
    y = net.op("Flatten", net.op("GlobalAveragePool", stem(net)))
    w = net.weight(6, 8, fan_in=8)
    y = net.relu(net.op("Gemm", y, w, transB=1, name="b"))
    y = net.relu(net.op("Gemm", y, w, name="c"))
    return net.model(net.gemm(y, 8, 3))


@graph("a", "b")
def weight_that_is_an_output_too():
    net = Net(3, 6, 6)
    w = net.weight(8, 8, 3, 3, fan_in=72)
    y = net.relu(net.op("Conv", stem(net), w, pads=[1] * 4, name="b"))
    shown = net.op("Identity", w)
    return net.model(net.head(net.conv_bn_relu(y, 8, 6, 1), 6), shown)


# Types.


@graph("a", "b", "fc")
def half_precision_without_batchnorm():
    net = Net(3, 6, 6, dtype=np.float16)
    y = net.relu(net.conv(net.relu(net.conv("x", 3, 8, name="a")), 8, 6, name="b"))
    y = net.op("ReduceMean", y, axes=[2, 3], keepdims=0)
    y = net.relu(net.gemm(y, 6, 5, name="fc"))
    return net.model(net.op("MatMul", y, net.weight(5, 3, fan_in=5)))


@graph("a", "b")
def half_precision_inside():
    """Casts at both ends."""
    net = Net(batch="N")
    net.inputs.append(net.info("image", "N", 3, 6, 6))
    net.dtype = np.dtype(np.float16)
    x = net.op("Cast", "image", to=TensorProto.FLOAT16)
    y = net.relu(net.conv(x, 3, 8, name="a"))
    y = net.head(net.relu(net.conv(y, 8, 6, name="b")), 6)
    y = net.op("Cast", y, to=TensorProto.FLOAT)
    return net.model(y)


def _bfloat(net, array):
    import ml_dtypes

    return net.raw(array.astype(ml_dtypes.bfloat16))


@graph("a", "b")
def bfloat_weights():
    """Weights of 16 bits, cast where they are read."""
    net = Net(3, 6, 6)
    y = "x"
    for name, c, m in (("a", 3, 8), ("b", 8, 6)):
        w = _bfloat(net, net.rng.normal(size=(m, c, 3, 3)) / 5)
        w = net.op("Cast", w, to=TensorProto.FLOAT)
        y = net.relu(net.op("Conv", y, w, net.vector(m), pads=[1] * 4, name=name))
    return net.model(net.head(y, 6))


@graph("a", "b", "fc")
def bfloat_inside():
    """Everything between two casts in 16 bits."""
    net = Net(3, 6, 6, opset=22, ir=10)
    y = net.op("Cast", "x", to=TensorProto.BFLOAT16)
    for name, c, m in (("a", 3, 8), ("b", 8, 6)):
        w, b = (_bfloat(net, net.rng.normal(size=s) / 5) for s in ((m, c, 3, 3), (m,)))
        y = net.op("Relu", net.op("Conv", y, w, b, pads=[1] * 4, name=name))
    y = net.op("ReduceMean", y, net.ints(2, 3), keepdims=0)
    for name, c, m in (("fc", 6, 5), (None, 5, 3)):
        w, b = (_bfloat(net, net.rng.normal(size=s) / 2) for s in ((m, c), (m,)))
        y = net.op("Gemm", y, w, b, transB=1, name=name)
    return net.model(net.op("Cast", y, to=TensorProto.FLOAT))


@graph("a", "b", "fc")
def double_precision_in_every_layer():
    net = Net(3, 4, 4, dtype=np.float64)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.deconv(y, 8, 6))
    y = net.relu(net.conv(y, 6, 6, name="b"))
    y = net.gemm(net.op("Flatten", net.op("GlobalAveragePool", y)), 6, 5, name="fc")
    return net.model(net.op("MatMul", net.relu(y), net.weight(5, 3, fan_in=5)))


# Inputs and outputs.


@graph("a", "b")
def input_that_is_an_output():
    net = Net(3, 6, 6)
    y = net.op("Identity", net.input("aside", "N", 4))
    return net.model(net.head(net.conv_bn_relu(stem(net), 8, 6, name="b"), 6), y)


@graph("b", stays=["a"], locked="graph output")
def output_under_two_names():
    net = Net(3, 6, 6)
    x = stem(net)
    u, v = net.op("Identity", x), net.op("Identity", x)
    return net.model(u, v, net.head(net.conv_bn_relu(x, 8, 6, name="b"), 6))


@graph("b")
def whole_number_inputs():
    """Pixels as bytes, and a number that chooses an embedding to add."""
    net = Net()
    net.inputs += [net.info("x", "N", 3, 6, 6, dtype=np.uint8), net.info("k", "N", dtype=np.int64)]
    y = net.op("Div", net.op("Cast", "x", to=1), net.store(np.array(255.0)))
    y = net.conv(y, 3, 8, name="a")
    table = net.op("Gather", net.store(net.rng.normal(size=(5, 8))), "k", axis=0)
    y = net.op("Add", y, net.op("Unsqueeze", table, net.ints(2, 3)))
    return net.model(net.head(net.conv_bn_relu(net.relu(y), 8, 6, name="b"), 6))


@graph("fc")
def vectors_only():
    """No image at all."""
    net = Net(7)
    return net.model(net.gemm(net.relu(net.gemm("x", 7, 8, name="fc")), 8, 3))


@graph("fc")
def numbers_and_vectors():
    """Rank 0 and rank 1 beside a small network."""
    net = Net(7)
    s = net.input("s")
    v = net.input("v", 5)
    y = net.gemm(net.relu(net.gemm("x", 7, 8, name="fc")), 8, 3)
    y = net.op("Mul", y, net.op("Sigmoid", s))
    total = net.op("ReduceSum", net.op("Exp", v), keepdims=0)
    dot = net.op("MatMul", v, net.vector(5))
    return net.model(y, net.op("Add", total, dot))


@graph()
def no_layer_at_all():
    net = Net(3, 6, 6)
    return net.model(net.op("Softmax", net.op("Sub", "x", net.vector(3, 1, 1)), axis=1))


@graph(stays=["only"], locked="graph output")
def one_layer_only():
    net = Net(3, 6, 6)
    return net.model(net.conv("x", 3, 8, name="only"))


@graph("b", stays=["a"])
def one_channel_wide():
    """A layer with a single filter keeps it."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(net.conv_bn_relu("x", 3, 1, name="a"), 1, 6, name="b")
    return tail(net, y, 6)


@graph("a", "b")
def fixed_everywhere():
    net = Net(3, 5, 7, batch=1)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b", strides=[2, 1], pads=[0, 1, 2, 1])
    y = net.reshape(y, 1, 6, 21)
    return net.model(net.gemm(net.reshape(y, 1, 126), 126, 3))


@graph("a", "b", "c")
def uneven_windows():
    """Asymmetric pads, strides and dilations, by numbers and by auto_pad."""
    net = Net(3, 9, 8)
    y = net.relu(net.conv("x", 3, 8, name="a", pads=[0, 2, 1, 0], strides=[1, 2]))
    y = net.relu(net.conv(y, 8, 6, name="b", auto_pad="SAME_LOWER", strides=[2, 1]))
    y = net.conv(y, 6, 6, 2, name="c", dilations=[1, 2], pads=[0, 1, 0, 0], group=2)
    return tail(net, net.relu(y), 6)


@graph("a", "b", "c")
def dynamic_shapes_with_channel_counts():
    """Every axis computed: channel shuffle, an enlarged skip, positions, flattened pixels."""
    net = Net(3, "H", "W")
    x = stem(net)
    n, c, h, w = (net.size(x, axis) for axis in range(4))
    y = net.reshape_computed(x, n, 2, net.op("Div", c, net.ints(2)), h, w)
    y = net.reshape_computed(net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), n, c, h, w)
    y = net.conv_bn_relu(y, 8, 6, name="b", strides=[2, 2])
    sizes = net.op("Concat", n, net.size(y, 1), h, w, axis=0)
    y = net.op("Concat", net.op("Resize", y, "", "", sizes, mode="nearest"), x, axis=1)
    y = net.conv_bn_relu(y, 14, 6, 1, name="c")
    y = net.reshape_computed(y, n, net.size(y, 1), net.op("Mul", h, w))
    y = net.op("Transpose", y, perm=[0, 2, 1])
    return net.model(net.op("ReduceMax", net.linear(y, 6, 3), axes=[1], keepdims=0))


def external(model, path):
    """Save a model with all its tensors beside it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # saving empties the tensors
    onnx.save_model(
        copy, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )
