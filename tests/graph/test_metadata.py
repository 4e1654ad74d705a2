from __future__ import annotations

import onnx
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.graph import metadata


def entries(owner):
    return [(p.key, p.value) for p in owner.metadata_props]


def test_replaces_in_place_and_appends_what_is_new():
    model = onnx.ModelProto()
    for key, value in (("onnx_esn.a", "1"), ("author", "me"), ("onnx_esn.b", "2")):
        model.metadata_props.add(key=key, value=value)
    metadata.replace(model, {"b": "3", "c": "4"})
    assert entries(model) == [
        ("onnx_esn.a", "1"),
        ("author", "me"),
        ("onnx_esn.b", "3"),
        ("onnx_esn.c", "4"),
    ]
    assert metadata.read(model) == {"a": "1", "b": "3", "c": "4"}


def test_repeated_keys_become_one():
    node = onnx.NodeProto()
    for value in ("1", "2"):
        node.metadata_props.add(key="onnx_esn.a", value=value)
        node.metadata_props.add(key="twice", value=value)
    metadata.replace(node, {"a": "3"})
    assert entries(node) == [("onnx_esn.a", "3"), ("twice", "1"), ("twice", "2")]


def test_remove_leaves_other_tools_alone():
    model = onnx.ModelProto()
    for key in ("onnx_esn.a", "onnx_esnx", "onnx_esn.b", "torch"):
        model.metadata_props.add(key=key, value="v")
    assert metadata.remove(model, ["a", "absent"])
    assert [k for k, _ in entries(model)] == ["onnx_esnx", "onnx_esn.b", "torch"]
    assert metadata.remove(model)
    assert not metadata.remove(model)
    assert [k for k, _ in entries(model)] == ["onnx_esnx", "torch"]


@given(
    st.lists(st.tuples(st.sampled_from(["onnx_esn.a", "onnx_esn.b", "x"]), st.text(max_size=3))),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=3)),
)
def test_replace_is_idempotent_and_complete(before, values):
    model = onnx.ModelProto()
    for key, value in before:
        model.metadata_props.add(key=key, value=value)
    metadata.replace(model, values)
    once = model.SerializeToString()
    metadata.replace(model, values)
    assert model.SerializeToString() == once
    assert values.items() <= metadata.read(model).items()
    ours = [k for k, _ in entries(model) if k[len(metadata.PREFIX) :] in values]
    assert len(ours) == len(values)
    assert [v for k, v in entries(model) if k == "x"] == [v for k, v in before if k == "x"]
