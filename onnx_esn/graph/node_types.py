"""The types of one node's outputs, by the schema of its operator."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TypeProto, defs, numpy_helper, shape_inference

from onnx_esn.errors import ModelError
from onnx_esn.graph.evaluate import QUANTIZERS, is_standard
from onnx_esn.graph.facts import SMALL, Array, Facts
from onnx_esn.graph.node_names import describe


def infer_node(
    node: onnx.NodeProto,
    types: dict[str, TypeProto],
    facts: Facts,
    opsets: dict[str, int],
    imports: list[onnx.OperatorSetIdProto],
) -> dict[str, TypeProto]:
    """Return the types of a node's outputs, by name; none where that cannot be said.

    Args:
        node: the node.
        types: of the tensors before it.
        facts: values of these; a refusal of the inference is added to its `failures`.
        opsets, imports: the operator sets of the model.

    Raises:
        ModelError: the node is not valid at its operator set.
    """
    domain = "" if is_standard(node) else node.domain
    version = opsets.get(domain)
    if node.domain == "com.microsoft" and node.op_type in QUANTIZERS:
        version = max(version or 0, 21)
    if version is None or not defs.has(node.op_type, version, domain):
        return {}
    schema = defs.get_schema(node.op_type, version, domain)
    if any(i and i not in types for i in node.input):
        return {}
    data = {
        i: numpy_helper.from_array(np.array(facts.values[i], order="C"), i)
        for i in node.input
        if i in facts.values and _steers(facts.values[i])
    }
    try:
        return shape_inference.infer_node_outputs(
            schema,
            node,
            {i: types[i] for i in node.input if i},
            data,
            opset_imports=imports,
            ir_version=8,
        )
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"{describe(node)}: not valid at operator set {version}: "
            f"{str(error).strip().splitlines()[0]}; export the model at a higher operator set, or "
            "in float32"
        ) from error
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        facts.failures.append((describe(node), str(error).strip().splitlines()[-1]))
        return {}


def _steers(value: Array) -> bool:
    """Whether a shape may depend on this value: counts and indices, or a few scales."""
    return value.size <= (SMALL if value.dtype.kind != "f" else 16)
