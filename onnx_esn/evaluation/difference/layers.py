"""Layers before and after: cost, filters that are gone, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.evaluate import EvaluationError
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.readers import read_places
from onnx_esn.graph.rewrite.rotated import Rotated, rotated_layers
from onnx_esn.graph.shapes import guessed_facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.correcting.norm_pairing import kept_channels
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.inspecting.result import Inspection
from onnx_esn.passes.layers.costs import InputShape, measured_view

from .changes import LayerDifference
from .ends import End, find_end
from .pairing import Pairing, pair_nodes
from .tensors import differ
from .wiring import Wiring

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A model in standard form: its wiring, layers by node, costs, and record of kept filters."""

    wiring: Wiring
    layers: Mapping[int, Layer]
    inspection: Inspection
    kept: Mapping[str, Indices]
    rotated: Rotated
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LayerPair:
    """A layer of both models.

    Attributes:
        before: the layer in the first model.
        after: the layer in the second model.
        kept: which of its filters are left; None where nothing says so.
        ends: where its output is complete, in the first and the second model.
        turned: whether its outputs, and whether its inputs, are in different bases.
    """

    before: Layer
    after: Layer
    kept: Indices | None
    ends: tuple[End, End]
    turned: tuple[bool, bool] = (False, False)


def view_model(
    model: onnx.ModelProto, name: str, shape: InputShape | None, sample: InputShape | None
) -> View:
    """Look at a model's layers, at the sizes given, else its own, else those of a sample.

    Raises:
        OptionError, ModelError: the shape given does not fit, or an input declares none.
    """
    plain = standard_form(model)
    notes = []
    if isinstance(shape, Sequence):
        shape = {info.name: shape for info in data_inputs(plain)[:1]}
    try:
        inspection = inspect(plain, input_shape=shape, groups=False)
    except OptionError:
        if shape is not None:
            raise
        shape = sample
        if shape is None:
            shape = guessed_facts(plain, Wiring(plain).constants, batch=1).sizes
            listed = ", ".join(f"{k} {'×'.join(map(str, v))}" for k, v in shape.items())
            notes.append(f"{name}: sizes are open; MACs are those at {listed} (input shape)")
        inspection = inspect(plain, input_shape=shape, groups=False)
    layers = {layer.index: layer for layer in measured_view(plain, shape).layers}
    reasons: dict[str, list[str]] = {}
    for unresolved in inspection.unresolved:
        reasons.setdefault(unresolved.reason, []).append(unresolved.node)
    for reason, nodes in reasons.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        notes.append(f"{name}: not in the figures: {nodes[0]}{more}: {reason}")
    try:
        kept = kept_channels(model)
    except ModelError as error:
        kept = {}
        notes.append(f"{name}: {error}")
    return View(Wiring(plain), layers, inspection, kept, rotated_layers(model), tuple(notes))


def pair_layers(a: View, b: View) -> tuple[list[LayerPair], Pairing]:
    """Layers whose nodes belong together, in the order of the first model."""
    pairing = pair_nodes(a.wiring, b.wiring)
    here, there = read_places(a.wiring.model), read_places(b.wiring.model)
    found = []
    for i, before in a.layers.items():
        after = b.layers.get(pairing.nodes.get(i, -1))
        if after is not None:
            ends = find_end(a.wiring, here, before), find_end(b.wiring, there, after)
            kept, turned = _kept(a, before, b, after), _turned(a, before, b, after)
            found.append(LayerPair(before, after, kept, ends, turned))
    return found, pairing


def layer_differences(a: View, b: View, pairs: Sequence[LayerPair]) -> list[LayerDifference]:
    """Every layer of both models, those of the second only last."""
    first = {layer.name: layer for layer in a.inspection.layers}
    second = {layer.name: layer for layer in b.inspection.layers}
    partner = {pair.before.name: pair for pair in pairs}
    result = []
    for name, figures in first.items():
        pair = partner.get(name)
        if pair is None:
            result.append(LayerDifference(figures, None))
            continue
        largest, snr = _weights(a, b, pair)
        removed = None
        if pair.kept is not None:
            gone = np.setdiff1d(np.arange(pair.before.filters), pair.kept)
            removed = tuple(int(i) for i in gone)
        result.append(LayerDifference(figures, second[pair.after.name], removed, largest, snr))
    taken = {pair.after.name for pair in pairs}
    return result + [LayerDifference(None, x) for n, x in second.items() if n not in taken]


def _turned(a: View, before: Layer, b: View, after: Layer) -> tuple[bool, bool]:
    """`LayerPair.turned`; two rotations of one layer are not told apart."""
    outputs, inputs = (
        (before.name in mine) != (after.name in theirs)
        for mine, theirs in zip(a.rotated, b.rotated, strict=True)
    )
    return outputs, inputs


def _kept(a: View, before: Layer, b: View, after: Layer) -> Indices | None:
    """Positions among the filters of `before` of those that `after` has left."""
    mine = b.kept.get(after.name, b.kept.get(before.name))
    if mine is None or mine.shape != (after.filters,):
        return np.arange(before.filters) if before.filters == after.filters else None
    # A first model that was pruned itself has lost filters too.
    there = a.kept.get(before.name, np.arange(before.filters))
    where = {int(channel): position for position, channel in enumerate(there)}
    if there.size != before.filters or not all(int(channel) in where for channel in mine):
        return np.arange(before.filters) if before.filters == after.filters else None
    return np.asarray([where[int(channel)] for channel in mine], dtype=np.int64)


def _weights(a: View, b: View, pair: LayerPair) -> tuple[float | None, float | None]:
    """(largest difference, SNR) of the filters that are left, None where they do not compare."""
    if any(pair.turned) or pair.kept is None or pair.ends[0].scaled != pair.ends[1].scaled:
        return None, None  # a normalization that was folded is in the weights of one model
    try:
        before = _rows(a, pair.before)
        after = _rows(b, pair.after)
    except EvaluationError:
        return None, None
    if before.shape[1] != after.shape[1] or pair.before.kernel != pair.after.kernel:
        return None, None
    if not np.array_equal(pair.kept, np.arange(len(before))):
        before = before[pair.kept]
    return differ(before, after)


def _rows(view: View, layer: Layer) -> npt.NDArray[np.generic]:
    return layer.as_filters(view.wiring.constants.value(layer.weight, keep=False))
