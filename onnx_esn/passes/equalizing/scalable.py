"""Which channels of a model can be scaled, and what takes the factor at either end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Classes
from onnx_esn.graph.channels.propagation import Claim, Propagation, Rule, propagate
from onnx_esn.graph.channels.size_check import lock_what_moves
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.node_names import unique_names
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.graph.readers import readers
from onnx_esn.graph.two_sizes import two_sizes
from onnx_esn.graph.weights import StoredWeight, path_outputs, read_weight

_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast")


@dataclass(frozen=True)
class Scalable:
    """What is known of a model's scales.

    Attributes:
        model: the model.
        constants: its constants.
        propagation: labels and claims under the rules of `layer_rules`.
        classes: labels that have one factor; of locked ones it is 1.
        layers: the weight-bearing layers by index of the node.
        names: a unique name for each node.
    """

    model: onnx.ModelProto
    constants: Constants
    propagation: Propagation
    classes: Classes
    layers: Mapping[int, Layer]
    names: Sequence[str]

    @cached_property
    def claims(self) -> dict[tuple[int, int], list[Claim]]:
        """Claims by (index of the node, input slot)."""
        found: dict[tuple[int, int], list[Claim]] = {}
        for claim in self.propagation.claims:
            found.setdefault((claim.node, claim.slot), []).append(claim)
        return found


def find_scalable(
    model: onnx.ModelProto,
    rules: Mapping[str, Rule],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Scalable:
    """Follow the channels of a model in standard form.

    Bodies of If, Loop and Scan are not entered: what they read has a fixed scale.

    Args:
        model: the model.
        rules: `SCALING` or `SCALING_ALL`.
        shapes: input shapes for dynamic axes other than the batch.
    """
    constants = Constants(model)
    facts, other = two_sizes(model, constants, shapes)
    p = propagate(model, constants, facts, dict(rules))
    lock_what_moves(p, other, dict(rules))
    layers = {layer.index: layer for layer in find_layers(model, constants, facts)}
    users = readers(model)
    refused: dict[tuple[int, int], str] = {}
    for claim in p.claims:
        key = claim.node, claim.slot
        if key not in refused:
            layer = layers.get(claim.node)
            if layer is not None and layer.slot == claim.slot:
                weight = read_weight(layer, constants)
                refused[key] = refused_weight(model, constants, users, layer, weight)
            else:
                refused[key] = _refused_parameter(constants, claim.tensor)
        if refused[key]:
            p.space.lock(claim.labels, refused[key])
    return Scalable(model, constants, p, p.space.classes(), layers, unique_names(model))


def _refused_parameter(constants: Constants, name: str) -> str:
    """Why a bias or the like cannot have other values, or ""."""
    read = name
    while name in constants.producer and constants.producer[name].op_type in _MOVES:
        name = constants.producer[name].input[0]
    maker = constants.producer.get(name)
    if maker is not None and maker.op_type != "Constant":
        return f"{read!r} is computed in the graph ({maker.op_type})"
    return ""


def refused_weight(
    model: onnx.ModelProto,
    constants: Constants,
    users: Mapping[str, Sequence[int]],
    layer: Layer,
    weight: StoredWeight,
) -> str:
    """Why the weight of a layer cannot have other values, or ""."""
    if weight.locked:
        return f"{layer.name}: {weight.locked}"
    if weight.read_type not in EPSILON or not np.isfinite(weight.W).all():
        return f"{layer.name}: its weights are not finite floats"
    if weight.step is not None:
        return f"{layer.name}: its weights are on a grid already"
    names = set(path_outputs(layer, constants))
    inner = {i for i, node in enumerate(model.graph.node) if names & set(node.output)}
    if any(set(users.get(name, ())) - inner - {layer.index} for name in names):
        return f"{layer.name}: its weight is shared"
    return ""
