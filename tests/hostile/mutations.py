"""Models with something wrong in them, drawn at random: bytes that flipped, fields that lie.

Every choice comes from the generator that is passed in: a seed names a model for good.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMBERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 24, 2**16, 2**31, 2**40, 2**62)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, 1e38, -1e-45)
OPERATORS = (
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvTranspose", "DequantizeLinear", "Dropout", "Einsum", "Expand",
    "Flatten", "Gather", "GatherND", "Gemm", "GlobalAveragePool", "Identity", "If", "Loop",
    "MatMul", "MaxPool", "Mul", "NonZero", "OneHot", "PRelu", "Pad", "QuantizeLinear", "Range",
    "ReduceMean", "Relu", "Reshape", "Resize", "Scan", "ScatterND", "Shape", "Slice", "Softmax",
    "Split", "Squeeze", "Sum", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Mystery", "",
)  # fmt: skip
Mutation = Callable[[onnx.ModelProto, random.Random], None]


def flipped(content: bytes, rng: random.Random) -> bytes:
    """The same bytes, but for a few."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if len(data) else 0
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)])
            case 1:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del data[at : at + rng.choice((1, 2, 8, 64))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4:
                piece = data[at : at + rng.choice((4, 32, 128))]
                to = rng.randrange(len(data))
                data[to:to] = piece
            case 5:
                data[at : at + 1] = b"\xff" * rng.choice((1, 5, 9))
        if not data:
            break
    if rng.random() < 0.1:
        del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def _node(model, rng):
    return rng.choice(model.graph.node)


def _names(model):
    graph = model.graph
    names = [o for n in graph.node for o in n.output]
    return ["", "x", "nowhere", *names, *(t.name for t in graph.initializer)]


def drop_node(model, rng):
    del model.graph.node[rng.randrange(len(model.graph.node))]


def repeat_node(model, rng):
    model.graph.node.append(_node(model, rng))


def swap_nodes(model, rng):
    a, b = _node(model, rng), _node(model, rng)
    first, second = onnx.NodeProto(), onnx.NodeProto()
    first.CopyFrom(a)
    second.CopyFrom(b)
    a.CopyFrom(second)
    b.CopyFrom(first)


def rewire(model, rng):
    node = _node(model, rng)
    names = node.input if rng.random() < 0.8 else node.output
    if names:
        names[rng.randrange(len(names))] = rng.choice(_names(model))


def change_inputs(model, rng):
    node = _node(model, rng)
    if node.input and rng.random() < 0.5:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.append(rng.choice(_names(model)))


def change_outputs(model, rng):
    node = _node(model, rng)
    if node.output and rng.random() < 0.5:
        del node.output[-1]
    else:
        node.output.append(rng.choice(("", "more")))


def change_operator(model, rng):
    _node(model, rng).op_type = rng.choice(OPERATORS)


def change_domain(model, rng):
    _node(model, rng).domain = rng.choice(
        ("", "ai.onnx", "com.microsoft", "mystery", "onnx_esn.flow", "qonnx.custom_op.general")
    )


def change_attribute(model, rng):
    node = _node(model, rng)
    if not node.attribute:
        node.attribute.append(
            helper.make_attribute(rng.choice(("axis", "group", "perm", "to")), rng.choice((0, 7)))
        )
        return
    a = rng.choice(node.attribute)
    if a.ints and rng.random() < 0.8:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(NUMBERS)
    elif a.ints:
        a.ints.append(1)
    elif a.type == onnx.AttributeProto.INT:
        a.i = rng.choice(NUMBERS)
    elif a.type == onnx.AttributeProto.FLOAT:
        a.f = rng.choice(FLOATS)
    else:
        a.type = rng.randrange(14)


def drop_attribute(model, rng):
    node = _node(model, rng)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def _tensor(model, rng):
    held = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    return rng.choice([*model.graph.initializer, *held] or [None])


def change_sizes(model, rng):
    tensor = _tensor(model, rng)
    if tensor is None:
        return
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif rng.random() < 0.5:
        tensor.dims.append(rng.choice((0, 1, 1, 2)))
    else:
        del tensor.dims[:1]


def reshape_tensor(model, rng):
    """Other sizes with bytes that fit them."""
    tensor = _tensor(model, rng)
    if tensor is None or tensor.data_type not in (1, 6, 7, 10, 11):
        return
    dims = [rng.choice((0, 1, 1, 2, 3, 8)) for _ in range(rng.randrange(6))]
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.ones(dims, kind), tensor.name))


def change_values(model, rng):
    tensor = _tensor(model, rng)
    if tensor is None or tensor.data_type not in (1, 6, 7, 10, 11) or not all(tensor.dims):
        return
    try:
        values = numpy_helper.to_array(tensor).copy()
    except ValueError:  # an earlier mutation left too few of them
        return
    pool = FLOATS if values.dtype.kind == "f" else NUMBERS
    kind = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
    number = rng.choice(pool)
    if kind is not None:
        number = min(max(number, kind.min), kind.max)
    with np.errstate(over="ignore"):
        value = np.array(number).astype(values.dtype)
    if rng.random() < 0.3:
        values[...] = value
    else:
        values.reshape(-1)[rng.randrange(values.size)] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_type(model, rng):
    tensor = _tensor(model, rng)
    if tensor is not None:
        tensor.data_type = rng.choice((0, 1, 2, 7, 8, 10, 11, 14, 16, 17, 22, 23, 99, -1))


def change_bytes(model, rng):
    tensor = _tensor(model, rng)
    if tensor is not None and tensor.HasField("raw_data"):
        tensor.raw_data = rng.choice(
            (b"", tensor.raw_data[:-1], tensor.raw_data * 2, rng.randbytes(len(tensor.raw_data)))
        )


def drop_tensor(model, rng):
    if model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def rename_tensor(model, rng):
    if model.graph.initializer:
        rng.choice(model.graph.initializer).name = rng.choice(_names(model))


def send_outside(model, rng):
    tensor = _tensor(model, rng)
    if tensor is None:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key in ("location", "offset", "length", "basepath"):
        if rng.random() < 0.7:
            value = rng.choice(("../x", "/etc/passwd", "model.onnx", ".", "0", "-1", "99999999"))
            tensor.external_data.add(key=key, value=value)


def change_input(model, rng):
    info = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    dims = info.type.tensor_type.shape.dim
    match rng.randrange(4):
        case 0 if dims:
            rng.choice(dims).dim_value = rng.choice(NUMBERS)
        case 1:
            info.type.tensor_type.elem_type = rng.choice((0, 7, 8, 9, 10, 16, 99))
        case 2:
            info.type.tensor_type.ClearField("shape")
        case _:
            dims.add().dim_param = "N"


def change_versions(model, rng):
    if rng.random() < 0.3:
        model.ir_version = rng.choice((0, 1, 3, 4, 10, 14, 99))
    else:
        rng.choice(model.opset_import).version = rng.choice(
            (*NUMBERS[3:9], 7, 9, 11, 13, 18, 21, 25)
        )


def drop_output(model, rng):
    if model.graph.output:
        del model.graph.output[rng.randrange(len(model.graph.output))]


def mark(model, rng):
    entry = rng.choice((model, _node(model, rng))).metadata_props.add()
    entry.key = rng.choice(("onnx_esn.body", "esn", "esn.input_shapes", "onnx_esn"))
    entry.value = rng.choice(("", "{}", "/1:body", "[1,", "\x1b[2J"))


def wrap_in_if(model, rng):
    """A node moves into the branches of an If."""
    at = rng.randrange(len(model.graph.node))
    node = model.graph.node[at]
    if not node.output:
        return
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.output[:] = [f"{name}_{o}" for o in node.output]
        outputs = [
            helper.make_tensor_value_info(o, 1, ["N"] * rng.randrange(5)) for o in inner.output
        ]
        branches[name] = helper.make_graph([inner], name, [], outputs)
    condition = helper.make_node(
        "Constant", [], ["on"], value=numpy_helper.from_array(np.array(rng.random() < 0.5))
    )
    outputs = list(node.output)
    node.CopyFrom(helper.make_node("If", ["on"], outputs, **branches))
    model.graph.node.insert(at, condition)


MUTATIONS: tuple[Mutation, ...] = (
    drop_node, repeat_node, swap_nodes, rewire, rewire, change_inputs, change_outputs,
    change_operator, change_operator, change_domain, change_attribute, change_attribute,
    change_attribute, drop_attribute, change_sizes, reshape_tensor, reshape_tensor, change_values,
    change_values, change_type, change_bytes, drop_tensor, rename_tensor, send_outside,
    change_input, change_input, change_versions, drop_output, mark, wrap_in_if,
)  # fmt: skip


def mutated(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """A model after one to three structural mutations, as the bytes of a file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not copy.graph.node:
            break
        rng.choice(MUTATIONS)(copy, rng)
    return copy.SerializeToString()


def hostile_bytes(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """A model that is damaged in either way."""
    if rng.random() < 0.25:
        return flipped(model.SerializeToString(), rng)
    content = mutated(model, rng)
    return flipped(content, rng) if rng.random() < 0.05 else content
