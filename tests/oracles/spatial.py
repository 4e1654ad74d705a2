"""The oracle of spatial pruning: the whole kernels, with zeros where the plan says so."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.weights import path_outputs
from onnx_esn.plans.spatial import unpack_mask


def zeroed_model(model, plan):
    """The model in standard form with zeros in its kernels, position by position."""
    copy = onnx.ModelProto()
    copy.CopyFrom(standard_form(model))
    constants = Constants(copy)
    layers = find_layers(copy, constants, Facts(sizes={}))
    by_name = {x.name: x for x in layers}
    for entry in plan.layers:
        chosen = by_name[entry.node]
        tensor = path_outputs(chosen, constants)[0]
        sharing = [x for x in layers if path_outputs(x, constants)[0] == tensor]
        W = np.array(constants.value(chosen.weight))
        for j in range(chosen.filters):
            for at in itertools.product(*map(range, entry.kernel)):
                if gone(entry, chosen, j, at):
                    W[of_filter(chosen, W, j, at)] = 0
        name = f"zeroed_{entry.node}"
        copy.graph.initializer.append(numpy_helper.from_array(W, name))
        if copy.ir_version < 4:
            elem = onnx.helper.np_dtype_to_tensor_dtype(W.dtype)
            copy.graph.input.append(onnx.helper.make_tensor_value_info(name, elem, W.shape))
        for layer in sharing:
            copy.graph.node[layer.index].input[1] = name
    return copy


def gone(entry, layer, j, at):
    """Whether filter j loses the position."""
    ends = zip(at, entry.kernel, entry.begin, entry.end, strict=True)
    if any(x < a or x >= k - b for x, k, a, b in ends):
        return True
    if not entry.zeroed:
        return False
    mask = unpack_mask(entry.zeroed, (layer.filters, int(np.prod(entry.kernel))))
    return bool(mask[j].reshape(entry.kernel)[at])


def of_filter(layer, W, j, at):
    """Where a filter's weights at a position are, for all its inputs."""
    if layer.op == "Conv":
        return (j, slice(None), *at)
    per_group, inputs = layer.filters // layer.groups, W.shape[0] // layer.groups
    g, m = divmod(j, per_group)
    return (slice(g * inputs, (g + 1) * inputs), m, *at)
