"""After a rewrite: drop what lost its readers, and declarations that no longer hold."""

from __future__ import annotations

import onnx
from onnx import helper

from onnx_esn.graph.propagation import captured


def drop_unused(old: onnx.ModelProto, new: onnx.ModelProto) -> None:
    """Remove what the rewriting left without a reader (and only that)."""

    def readers(model: onnx.ModelProto) -> set[str]:
        names = {o.name for o in model.graph.output}
        for node in model.graph.node:
            names.update(i for i in node.input if i)
            names.update(captured(node))
        return names

    used_before = readers(old)
    while True:
        used = readers(new)
        nodes = [
            n
            for n in new.graph.node
            if not any(o in used_before and o not in used for o in n.output)
            or any(o in used for o in n.output)
        ]
        if len(nodes) == len(new.graph.node):
            break
        del new.graph.node[:]
        new.graph.node.extend(nodes)
    stale = {t.name for t in new.graph.initializer if t.name in used_before and t.name not in used}
    for names in (new.graph.initializer, new.graph.input):
        kept = [t for t in names if t.name not in stale]
        if len(kept) < len(names):
            del names[:]
            names.extend(kept)


def fit_declarations(model: onnx.ModelProto) -> None:
    """Declared shapes of the old graph go; initializers that are inputs declare their new shape."""
    had = bool(model.graph.value_info)
    del model.graph.value_info[:]
    dims = {t.name: t for t in model.graph.initializer}
    for info in model.graph.input:
        if info.name in dims:
            tensor = dims[info.name]
            info.CopyFrom(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    if had:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            model.graph.value_info.extend(inferred.graph.value_info)
        except (onnx.shape_inference.InferenceError, ValueError):
            pass  # only a convenience for readers of the file
