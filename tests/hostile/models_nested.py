"""Hostile models, continued: bodies in bodies, functions that call functions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.models import hostile, saved, written
from tests.hostile.models_sizes import _kept
from tests.hostile.verbs import SHAPE, sound_model
from tests.net import Net


def _nested(depth):
    """Bytes of a model of Ifs in Ifs, put together by hand: protobuf would not serialise it."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], [f"y{depth}"])],
        "inner",
        [],
        [helper.make_tensor_value_info(f"y{depth}", TensorProto.FLOAT, None)],
    ).SerializeToString()
    for level in reversed(range(depth)):
        attributes = b""
        for name in (b"then_branch", b"else_branch")[: 2 if level == depth - 1 else 1]:
            attributes += _field(5, _field(1, name) + _field(6, graph) + b"\xa0\x01\x05")
        last = _field(
            5, _field(1, b"else_branch") + _field(6, _leaf(f"y{level}_")) + b"\xa0\x01\x05"
        )
        if level < depth - 1:
            attributes += last
        node = _field(1, b"on") + _field(2, f"y{level}".encode()) + _field(4, b"If") + attributes
        info = helper.make_tensor_value_info(f"y{level}", TensorProto.FLOAT, None)
        graph = _field(1, node) + _field(2, b"g") + _field(12, info.SerializeToString())
    model = sound_model()
    for name, size in (("x", [1]), ("on", [])):
        kind = TensorProto.BOOL if name == "on" else TensorProto.FLOAT
        info = helper.make_tensor_value_info(name, kind, size)
        graph += _field(11, info.SerializeToString())
    model.ClearField("graph")
    return model.SerializeToString() + _field(7, graph)


def _leaf(name):
    return helper.make_graph(
        [helper.make_node("Relu", ["x"], [name])],
        "leaf",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
    ).SerializeToString()


def _field(number, content):
    """A field of bytes on the wire."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@hostile()
def nested_ten_deep(folder):
    return written(_nested(10), folder)


@hostile()
def nested_thirty_deep(folder):
    return written(_nested(30), folder)


@hostile("nested")
def nested_forty_deep(folder):
    return written(_nested(40), folder)


@hostile("nested")
def nested_a_thousand_deep(folder):
    return written(_nested(1000), folder)


@hostile("nested")
def attributes_nested_in_types(folder):
    """A sequence of sequences of …: types nest too."""
    kind = _field(1, b"\x08\x01")
    for _ in range(2000):
        kind = _field(4, _field(1, kind))
    info = _field(1, b"deep") + _field(2, kind)
    return written(sound_model().SerializeToString() + _field(7, _field(11, info)), folder)


def _function(name, nodes):
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["u"], ["v"], nodes, opsets)


def _with_functions(folder, functions, call):
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op(call, y, domain="local")
    model = _kept(net, net.head(y, 8), folder)
    loaded = onnx.load(model)
    loaded.opset_import.append(helper.make_opsetid("local", 1))
    loaded.functions.extend(functions)
    return saved(loaded, folder)


def _call(name, *, i="u", o="v"):
    return helper.make_node(name, [i], [o], domain="local")


@hostile("calls itself")
def function_that_calls_itself(folder):
    return _with_functions(folder, [_function("f", [_call("f")])], "f")


@hostile("calls itself")
def functions_that_call_each_other(folder):
    functions = [_function("f", [_call("g")]), _function("g", [_call("f")])]
    return _with_functions(folder, functions, "f")


@hostile("calls itself")
def functions_unused_that_call_each_other(folder):
    functions = [_function("f", [_call("g")]), _function("g", [_call("f")]),
                 _function("h", [helper.make_node("Relu", ["u"], ["v"])])]  # fmt: skip
    return _with_functions(folder, functions, "h")


@hostile("nodes")
def functions_that_double(folder):
    """Forty functions, each of which calls the next one twice."""
    functions = [
        _function(f"f{i}", [_call(f"f{i + 1}", o="w"), _call(f"f{i + 1}", i="w")])
        for i in range(40)
    ]
    functions.append(_function("f40", [helper.make_node("Relu", ["u"], ["v"])]))
    return _with_functions(folder, functions, "f0")


@hostile()
def a_chain_of_functions(folder):
    functions = [_function(f"f{i}", [_call(f"f{i + 1}")]) for i in range(300)]
    functions.append(_function("f300", [helper.make_node("Relu", ["u"], ["v"])]))
    return _with_functions(folder, functions, "f0")


@hostile("twice")
def function_twice(folder):
    f = _function("f", [helper.make_node("Relu", ["u"], ["v"])])
    return _with_functions(folder, [f, f], "f")


@hostile()
def function_without_nodes(folder):
    return _with_functions(folder, [_function("f", [])], "f")


@hostile()
def if_without_branches(folder):
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    net.op("If", net.raw(np.array(True)))
    return _kept(net, net.head(y, 8), folder)


@hostile()
def if_with_branches_of_no_outputs(folder):
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    empty = helper.make_graph([], "empty", [], [])
    y = net.op("If", net.raw(np.array(True)), then_branch=empty, else_branch=empty)
    return _kept(net, net.head(y, 8), folder)


@hostile()
def loop_with_a_body_of_nothing(folder):
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("Loop", net.raw(np.int64(3)), "", y, body=helper.make_graph([], "empty", [], []))
    return _kept(net, net.head(y, 8), folder)


@hostile()
def scan_of_more_than_there_is(folder):
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    inner = Net(prefix="body_")
    row = inner.input("row", 8, 6, 6)
    body = inner.body(inner.info(inner.op("Tanh", row), 8, 6, 6))
    y = net.op("Scan", y, num_scan_inputs=17, body=body)
    return _kept(net, net.head(y, 8), folder)
