"""What each layer of a model costs: the figures that `inspect` prints and budgets are met in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.inputs import data_inputs, input_sizes
from onnx_esn.graph.layers import OPERATORS, Layer, find_layers
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.shapes import infer_facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.esn import esn_prime
from onnx_esn.passes.base import Skipped

InputShape = Sequence[int] | Mapping[str, Sequence[int]]

# They carry multiply-accumulates too, but are not counted.
_UNCOUNTED = {
    "Attention", "ConvInteger", "DeformConv", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul",
    "GRU", "LSTM", "MatMulInteger", "MatMulNBits", "MultiHeadAttention", "QGemm", "QLinearConv",
    "QLinearMatMul", "RNN",
}  # fmt: skip


@dataclass(frozen=True)
class LayerView:
    """The layers of a model at one input size.

    Attributes:
        constants: constant tensors of the model.
        facts: shapes at that size.
        layers: its layers, in graph order.
    """

    constants: Constants
    facts: Facts
    layers: tuple[Layer, ...]


def view_layers(model: onnx.ModelProto, facts: Facts, constants: Constants) -> LayerView:
    """Find the layers, at sizes that are already inferred."""
    return LayerView(constants, facts, tuple(find_layers(model, constants, facts)))


def measured_view(model: onnx.ModelProto, input_shape: InputShape | None = None) -> LayerView:
    """Find the layers at the model's own input size, one sample at a time where that is open.

    Args:
        model: the model.
        input_shape: shape of the input (with the batch), or shapes by name.

    Raises:
        OptionError: the shape does not fit, or a dynamic axis other than the batch has no size.
        ModelError: an input declares no shape, and none is given.
    """
    constants = Constants(model)
    sizes = input_sizes(model, shapes=named_shapes(model, input_shape))
    return view_layers(model, infer_facts(model, sizes, constants), constants)


def named_shapes(
    model: onnx.ModelProto, input_shape: InputShape | None
) -> dict[str, tuple[int, ...]] | None:
    """Return shapes by input name; a bare shape is that of the model's only input.

    Raises:
        OptionError: a name is unknown, a size is below 1, or a bare shape meets several inputs.
    """
    if input_shape is None:
        return None
    names = [info.name for info in data_inputs(model)]
    if isinstance(input_shape, Mapping):
        shapes = {name: tuple(int(n) for n in shape) for name, shape in input_shape.items()}
    elif len(names) == 1:
        shapes = {names[0]: tuple(int(n) for n in input_shape)}
    else:
        raise OptionError(
            f"the model has {len(names)} inputs ({', '.join(names)}); give their shapes by name"
        )
    for name, shape in shapes.items():
        if name not in names:
            raise OptionError(f"the model has no input {name!r}; it has {', '.join(names)}")
        if any(n < 1 for n in shape):
            raise OptionError(f"shape {list(shape)} of input {name!r} has a size below 1")
    return shapes


def total_macs(model: onnx.ModelProto, *, input_shape: InputShape | None = None) -> int:
    """Return the MACs of one sample, over all layers whose output shape is known."""
    return sum(layer.macs or 0 for layer in measured_view(standard_form(model), input_shape).layers)


def total_cost(model: onnx.ModelProto, *, input_shape: InputShape | None = None) -> float:
    """Return ESN'_d in MAC·bit of one sample, over all layers whose output shape is known."""
    view = measured_view(standard_form(model), input_shape)
    return sum(
        esn_prime([x.macs_per_filter] * x.filters, read_weight(x, view.constants).filter_bits)
        for x in view.layers
        if x.macs_per_filter is not None
    )


def cost_target(
    target: Target | str | float,
    whole: onnx.ModelProto,
    *,
    input_shape: InputShape | None = None,
) -> tuple[float, float]:
    """Return a target of ESN'_d in MAC·bit, and what the model that a percentage refers to costs.

    Raises:
        BudgetError: no layer of that model has a known cost.
        OptionError: the target is none.
    """
    cost = total_cost(whole, input_shape=input_shape)
    if cost <= 0:
        raise BudgetError("the model has no layer whose cost is known, so no budget can be met")
    return parse_target(target).resolve(cost), cost


def not_counted(model: onnx.ModelProto, view: LayerView) -> list[Skipped]:
    """Return the nodes that multiply and accumulate but are none of the view's layers, and why.

    Gemm and MatMul of two activations have no weights, and are not named.
    """
    found: list[Skipped] = []
    seen = {layer.index for layer in view.layers}
    functions = {(f.domain, f.name): f.node for f in model.functions}
    for index, node in enumerate(model.graph.node):
        inner = [n for graph in _subgraphs(node) for n in graph]
        inner += functions.get((node.domain, node.op_type), ())
        hidden = Counter(n.op_type for n in _flat(inner) if n.op_type in OPERATORS)
        if hidden:
            what = " and ".join(f"{count} {op}" for op, count in hidden.items())
            reason = f"the {what} inside this {node.op_type} are not counted"
        elif index in seen:
            continue
        elif node.op_type in _UNCOUNTED:
            reason = f"{node.op_type} is not counted"
        elif node.op_type in OPERATORS:
            reason = _why_no_layer(node, view.constants)
        else:
            continue
        if reason:
            found.append(Skipped(node_name(node), reason))
    return found


def _why_no_layer(node: onnx.NodeProto, constants: Constants) -> str:
    constant = [name in constants for name in node.input[:2]]
    if all(constant):
        return ""  # folded before the model runs
    if node.op_type in ("Conv", "ConvTranspose"):
        return "its weights are computed at run time"
    return "its weight is a vector, not a matrix" if any(constant) else ""


def _subgraphs(node: onnx.NodeProto) -> Iterator[Sequence[onnx.NodeProto]]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g.node
        for graph in attribute.graphs:
            yield graph.node


def _flat(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for inner in _subgraphs(node):
            yield from _flat(inner)
