"""Which layers of a model can be followed: sampled, and given another weight and bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.readers import downstream
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.geometry import Geometry, find_geometry
from onnx_esn.passes.layerwise.statistics import WalkOptions

# Samples of a layer, within which `WalkOptions.per_weight` asks for some.
FEWEST, MOST = 4096, 32768
_BYTES = 1 << 30  # of all layers' outputs together
# Inputs d of a filter whose d × d moments are kept; memory grows with d², time with d³.
MOST_INPUTS = 5120


def find_plain_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of the main graph, without shapes."""
    return find_layers(model, Constants(model), Facts(sizes={}))


def follow(
    model: onnx.ModelProto, names: Collection[str]
) -> tuple[dict[str, Geometry], list[Skipped]]:
    """Layers of these names that can be followed, in graph order, and why the others cannot."""
    found: dict[str, Geometry] = {}
    layers = find_plain_layers(model)
    unknown = sorted(set(names) - {x.name for x in layers})
    skipped = [Skipped(name, "it is not followed layer by layer") for name in unknown]
    reached, constants = reached_tensors(model), Constants(model)
    for layer in layers:
        if layer.name not in names:
            continue
        geometry = find_geometry(model, layer)
        if isinstance(geometry, str):
            skipped.append(Skipped(layer.name, geometry))
        elif geometry.features > MOST_INPUTS:
            reason = f"its filters have {geometry.features} inputs, more than the {MOST_INPUTS} of"
            skipped.append(Skipped(layer.name, f"{reason} which moments are kept"))
        elif geometry.data not in reached:
            skipped.append(Skipped(layer.name, "its input is constant"))
        elif problem := bias_problem(layer, constants):
            skipped.append(Skipped(layer.name, problem))
        else:
            found[layer.name] = geometry
    return found, skipped


def bias_problem(layer: Layer, constants: Constants) -> str:
    """Why a layer's bias cannot be moved filter by filter, or ""."""
    if layer.bias and layer.bias not in constants:
        return "its bias is computed from the data"
    if layer.bias and not _of_filters(constants.shape(layer.bias), layer.filters):
        return "its bias differs between samples"
    return ""


def rows_per_sample(
    layers: Mapping[str, Geometry], samples: int, options: WalkOptions
) -> dict[str, int]:
    """Positions to take of each sample, by layer name."""
    count = {
        name: min(max(FEWEST, options.per_weight * g.features), MOST) for name, g in layers.items()
    }
    total = sum(4 * n * layers[name].layer.filters for name, n in count.items())
    share = min(1.0, _BYTES / max(total, 1))
    return {name: max(1, round(share * n / max(samples, 1))) for name, n in count.items()}


def reached_tensors(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on the model's inputs."""
    return downstream(model.graph.node, [x.name for x in data_inputs(model)])


def _of_filters(shape: tuple[int, ...], filters: int) -> bool:
    """Whether a bias has one number for each filter, or one for all."""
    return all(n == 1 for n in shape[:-1]) and shape[-1:] in ((), (1,), (filters,))
