"""Which node is which: by name, by structure, against names that mislead."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnx_esn.evaluation.difference import compare
from onnx_esn.evaluation.difference.pairing import pair_nodes
from onnx_esn.evaluation.difference.wiring import Wiring
from tests.evaluation.nets import classifier, copy, folded, named, renamed
from tests.models import MODELS
from tests.net import Net


def pairs(a, b):
    """(name before, name after) of all pairs."""
    first, second = Wiring(a), Wiring(b)
    found = pair_nodes(first, second).nodes
    return {(first.names[i], second.names[j]) for i, j in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_as_itself(name):
    model = MODELS[name].build()
    found = compare(model, copy(model))
    assert found.same
    assert not any(layer.changed for layer in found.layers)


@pytest.mark.parametrize("name", MODELS)
def test_every_node_is_found_under_another_name(name):
    model = MODELS[name].build()
    other = renamed(model)
    if other is None:
        pytest.skip("has bodies or functions")
    found = compare(model, other)
    assert not [node for node in found.nodes if None in node.name or node.differs]
    assert not [t for t in found.tensors if None in t.name or t.changed]
    assert not any(layer.changed for layer in found.layers)
    order = {node.output[0]: f"v_node_{k}" for k, node in enumerate(model.graph.node)}
    wiring = Wiring(model)
    right = {(wiring.names[k], order[n.output[0]]) for k, n in enumerate(model.graph.node)}
    # Nodes that compute the same from the same may stand for each other.
    twins = {n for k, n in enumerate(wiring.names) if _has_twin(wiring, k)}
    assert {p for p in pairs(model, other) if p[0] not in twins} == {
        p for p in right if p[0] not in twins
    }


def _has_twin(wiring, index):
    return any(
        k != index
        and wiring.nodes[k].op_type == wiring.nodes[index].op_type
        and wiring.place(k) == wiring.place(index)
        and wiring.identity(k) == wiring.identity(index)
        for k in range(len(wiring.nodes))
    )


def test_a_folded_model_of_other_names():
    a = classifier()
    found = compare(a, renamed(folded(a)))
    gone = [node.op[0] for node in found.nodes if node.name[1] is None]
    assert gone == ["BatchNormalization"] * 2
    assert not [node for node in found.nodes if node.name[0] is None]
    assert all(layer.before and layer.after for layer in found.layers)


def numbered(model, start=0):
    """A copy with nodes called after their operator and number, as some exporters do."""
    result = copy(model)
    for index, node in enumerate(result.graph.node):
        node.name = f"{node.op_type}_{start + index}"
    return result


def deep(*, bn):
    net = Net(3, 6, 6)
    y = "x"
    for c, m in ((3, 8), (8, 8), (8, 8), (8, 8), (8, 8)):
        y = net.conv(y, c, m, bias=not bn)
        y = net.relu(net.bn(y, m) if bn else y)
    return net.model(net.head(y, 8))


def test_names_that_were_numbered_anew_do_not_mislead():
    a = numbered(deep(bn=True))
    b = renamed(folded(deep(bn=True)))
    convs = [k for k, node in enumerate(b.graph.node) if node.op_type == "Conv"]
    b = numbered(b)
    assert {n.name for n in a.graph.node} & {n.name for n in b.graph.node}
    found = pairs(a, b)
    originals = [n.name for n in a.graph.node if n.op_type == "Conv"]
    right = {(x, b.graph.node[k].name) for x, k in zip(originals, convs, strict=True)}
    assert any(x != y for x, y in right)
    assert right <= found


def test_numbered_anew_is_said():
    a = numbered(deep(bn=True))
    b = numbered(renamed(folded(deep(bn=True))), start=3)
    assert any("paired by structure" in note for note in compare(a, b).notes)


def test_names_hold_where_a_block_was_cut_out():
    a = deep(bn=False)
    b = copy(a)
    convs = [node for node in b.graph.node if node.op_type == "Conv"]
    relus = [node for node in b.graph.node if node.op_type == "Relu"]
    convs[2].input[0] = convs[1].input[0]
    for node in (convs[1], relus[1]):
        b.graph.node.remove(node)
    gone = {(convs[1].name), (relus[1].name)}
    names = {node.name for node in a.graph.node} - gone
    assert pairs(a, b) == {(name, name) for name in names}


def branches(*weights, named="v"):
    """Convs of one input, added up."""
    net = Net(3, 6, 6, prefix=named)
    outs = [net.op("Conv", "x", net.store(W)) for W in weights]
    return net.model(net.head(net.op("Sum", *map(net.relu, outs)), weights[0].shape[0]))


def test_what_structure_leaves_open_stays_unpaired():
    W = np.random.default_rng(0).normal(size=(4, 6, 3, 1, 1))
    a, b = branches(W[0], W[1], named="a"), branches(W[2], W[3], named="b")
    assert not [p for p in pairs(a, b) if p[0].startswith("aconv")]
    # The weights tell them apart where they are the same.
    b = branches(W[1], W[0], named="b")
    assert {("aconv_0", "bconv_1"), ("aconv_1", "bconv_0")} <= pairs(a, b)


def test_another_operator_under_the_same_name():
    a = classifier()
    b = copy(a)
    relu = next(node for node in b.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    (change,) = compare(a, b).nodes
    assert change.op == ("Relu", "Sigmoid")
    assert change.name == (relu.name, relu.name)


def test_different_networks_do_not_crash_and_say_so():
    found = compare(classifier(), renamed(MODELS["dense_net"].build()))
    assert any("different networks" in note for note in found.notes)


def test_a_weight_that_keeps_its_name_pairs_its_layer():
    a = classifier()
    b = copy(a)
    for node in b.graph.node:
        node.name = f"other_{node.name}"
    graph = b.graph
    first = next(n for n in graph.node if n.op_type == "Conv")
    # Another way to the layer: structure alone does not get there.
    graph.node[0].input[0] = "squashed"
    squash = named(b, first.name)
    assert squash.input[0] == "squashed"
    graph.node.insert(0, helper.make_node("Tanh", ["x"], ["squashed"], "squash"))
    assert ("a", "other_a") in pairs(a, b)


def test_nodes_that_compute_the_same_stand_for_each_other():
    """Each size of one tensor is asked for by a Shape of its own, as exporters write it."""
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    sizes = [net.size(y, axis) for axis in (3, 0, 2)]
    twice = net.op("Add", net.op("Mul", sizes[0], sizes[2]), sizes[1])
    a = net.model(net.op("Add", y, net.op("Cast", twice, to=1)))
    b = renamed(a)
    moved = [n for n in b.graph.node if n.op_type == "Shape"]
    # In another order, so that their places in the file say nothing either.
    for node in moved:
        b.graph.node.remove(node)
    conv = next(k for k, n in enumerate(b.graph.node) if n.op_type == "Conv")
    for node in moved:
        b.graph.node.insert(conv + 1, node)
    found = compare(a, b)
    assert not [node for node in found.nodes if None in node.name or node.differs]


def test_what_takes_over_a_name_is_not_what_had_it():
    """A node without a name is called after its output, which a DequantizeLinear now makes."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    a = net.model(net.head(y, 4))
    next(n for n in a.graph.node if n.op_type == "Relu").name = ""
    b = copy(a)
    b.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "step"))
    relu = next(n for n in b.graph.node if n.op_type == "Relu")
    relu.output[0] = "before"
    at = list(b.graph.node).index(relu) + 1
    for node in (
        helper.make_node("DequantizeLinear", ["ints", "step"], [y]),
        helper.make_node("QuantizeLinear", ["before", "step"], ["ints"]),
    ):
        b.graph.node.insert(at, node)
    assert (y, "before") in pairs(a, b)
    found = compare(a, b)
    assert sorted(n.op[1] for n in found.nodes if n.name[0] is None) == [
        "DequantizeLinear",
        "QuantizeLinear",
    ]


def test_what_nobody_reads_is_known_by_its_values():
    model = MODELS["unused_initializers"].build()
    other = renamed(model)
    assert not [t for t in compare(model, other).tensors if None in t.name or t.changed]
    (unread,) = [t for t in other.graph.initializer if not reads(other, t.name)]
    W = numpy_helper.to_array(unread) * 2
    unread.CopyFrom(numpy_helper.from_array(W, unread.name))
    assert len([t for t in compare(model, other).tensors if None in t.name]) == 2


def reads(model, name):
    return any(name in node.input for node in model.graph.node)
