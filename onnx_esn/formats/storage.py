"""What a file need not hold: equal tensors twice, constants nobody reads, old shapes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import onnx

from onnx_esn.formats.constant_folding import store_constants
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import renamed
from onnx_esn.graph.stored import is_heavy, stand_in, taken_apart, without_values
from onnx_esn.graph.unread import drop, left_behind, reads
from onnx_esn.outside import any_outside, is_outside, stored_bytes, tensor_values

_LARGE = 1 << 28  # bytes
_HASHED = 1 << 10  # bytes from which on a hash stands for them
_APART = 4  # from this IR version on an initializer need not be an input


def tidy(model: onnx.ModelProto) -> None:
    """Drop what is unread, stored twice or inferred anyway, in place.

    Inputs, outputs, values and the names of what is left stay.
    """
    store_constants(model)
    drop(model, *left_behind(model, _constants(model), reads(model)))
    _merge_equal(model)
    _drop_inferred(model)


def _constants(model: onnx.ModelProto) -> set[str]:
    """Names of what does not depend on the inputs."""
    constants = Constants(model)
    return {*constants.initializers, *constants.producer}


def _merge_equal(model: onnx.ModelProto) -> None:
    """Keep the first of initializers with equal type, shape and bytes, for all their readers."""
    declared = {info.name for info in (*model.graph.input, *model.graph.output)}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alone = _without_likeness(model)
    instead: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name in declared and model.ir_version >= _APART:
            continue  # a default that may be fed, or an output
        key = None if tensor.name in alone else _key(tensor)
        if key is not None and first.setdefault(key, tensor.name) != tensor.name:
            instead[tensor.name] = first[key]
    outputs = {info.name for info in model.graph.output}
    instead = {old: new for old, new in instead.items() if old not in outputs}
    if instead:
        _rename_reads(model, instead)
        drop(model, set(), set(instead))


def _without_likeness(model: onnx.ModelProto) -> set[str]:
    """Names of initializers none of whose type and shape is another: their values do not matter."""
    kinds = {t.name: (t.data_type, *t.dims) for t in model.graph.initializer}
    count = Counter(kinds.values())
    return {name for name, kind in kinds.items() if count[kind] == 1}


def _key(tensor: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes] | None:
    """Type, shape, and the bytes or, where they are many, a hash of them; None: stays as it is."""
    outside = is_outside(tensor)
    if not (tensor.HasField("raw_data") or outside) or tensor.metadata_props or tensor.doc_string:
        return None
    raw = tensor_values(tensor).tobytes() if outside else tensor.raw_data
    if len(raw) > _HASHED:
        raw = hashlib.sha256(raw).digest()
    return tensor.data_type, tuple(tensor.dims), raw


def _rename_reads(model: onnx.ModelProto, instead: Mapping[str, str]) -> None:
    for node in model.graph.node:
        if _has_body(node):
            node.CopyFrom(renamed(node, lambda name, default: instead.get(name, default)))
        elif instead.keys() & set(node.input):
            node.input[:] = [instead.get(name, name) for name in node.input]


def _drop_inferred(model: onnx.ModelProto) -> None:
    """Drop declared shapes that inference finds as well, that contradict it or have no tensor."""
    made = {name: node for node in model.graph.node for name in node.output}
    declared = [info for info in model.graph.value_info if info.name in made]
    if declared:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True)
        known = {info.name: info.type for info in inferred.graph.value_info}
        known |= {info.name: info.type for info in model.graph.output}
        declared = [
            x
            for x in declared
            if _has_body(made[x.name]) or not _says_more(known.get(x.name), x.type)
        ]
    del model.graph.value_info[:]
    model.graph.value_info.extend(declared)


def _has_body(node: onnx.NodeProto) -> bool:
    """Whether a node carries graphs (If, Loop, Scan): not every tool infers shapes through them."""
    return any(a.HasField("g") or a.graphs for a in node.attribute)


def _says_more(inferred: onnx.TypeProto | None, declared: onnx.TypeProto) -> bool:
    """Whether what was inferred knows every size that was declared."""
    if inferred is None or not inferred.HasField("tensor_type"):
        return False
    a, b = inferred.tensor_type, declared.tensor_type
    if not a.elem_type or not a.HasField("shape"):
        return False
    if len(a.shape.dim) != len(b.shape.dim):
        return True  # the declaration is wrong, or has no shape
    pairs = zip(a.shape.dim, b.shape.dim, strict=True)
    return all(x.HasField("dim_value") or not y.HasField("dim_value") for x, y in pairs)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    light = without_values(model)
    del light.graph.value_info[:]
    for tensor in model.graph.initializer:
        heavy = is_heavy(tensor.dims)
        light.graph.initializer.append(
            stand_in(tensor, tensor.name, tensor.dims) if heavy else tensor
        )
    return light


def file_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model as a file; nearly, for a large one: protobuf writes it out to measure."""
    light, large = taken_apart(model)
    large += [tensor for tensor in light.graph.initializer if is_outside(tensor)]
    size = int(light.ByteSize()) + sum(stored_bytes(tensor) for tensor in large)
    return int(model.ByteSize()) if size < _LARGE and not any_outside(model) else size
