"""What changing one filter does to the outputs: of all filters at once, by going backward.

A filter that changes by ΔW_f changes its outputs by e_f, and the divergence to second order by the
mean of

    a_f² = (Σ_positions g_f·e_f)²,    g the gradient of u·outputs,

for random u (`numerics.output_curvature`). One run forward and back of an image tells a_f of every
filter of every layer; to see them by probes would take a run for each. Errors of other filters do
not come into it, nor how the layers behind are rounded afterwards.

The gradients are nodes of the model's own graph (`graph.gradients`), in float32. Where one is not
known, or an output holds no numbers of that kind, nothing is said of the layers in front.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs
from onnx_esn.errors import OnnxEsnError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.gradients.backward import append_backward
from onnx_esn.graph.gradients.in_float32 import in_float32
from onnx_esn.graph.gradients.pad_fusion import fuse_pads
from onnx_esn.graph.gradients.preparing import (
    differentiable,
    fix_inputs,
    infer_appended,
    tensor_info,
)
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.judged_tensors import judged_tensors
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.shapes import infer_facts
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.output_curvature import TEMPERATURE, is_quadratic, random_directions
from onnx_esn.outside import any_outside

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]

_DIRECTION = "direction."
_SEED = 0  # of the directions
_BYTES = 1 << 29  # of what a run keeps for its way back, about
_KEPT = 3  # tensors of the size of each of the model's
_MOST_AT_ONCE = 32
_MOST_STORED = 2**31 - 2**24  # bytes of a model, less some for its nodes


@dataclass(frozen=True)
class Change:
    """Another weight for a layer.

    Attributes:
        rows: what is added to its filters (M, K).
        shift: by how much that moves the means of its outputs (M,), which are kept.
    """

    rows: Floats
    shift: Floats


@dataclass(frozen=True)
class _Graph:
    """A model with what its layers' changes do.

    Attributes:
        model: the outputs are (rows, M).
        feeds: name of the input with the direction, by output of the model.
        found: name of the output of each change, by layer.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, str]
    found: Mapping[str, Sequence[str]]


def filter_errors(
    model: onnx.ModelProto,
    changes: Mapping[str, Sequence[Change]],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
    temperature: float = TEMPERATURE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Floats]:
    """Expected divergence (changes, M) of the outputs if one filter alone is changed, by layer.

    Args:
        model: in standard form.
        changes: those to tell of, by layer name.
        images: each is run once forward and once back.
        batch_size: at most so many at once.
        threads: for running them.
        temperature: of class scores, see `numerics.output_curvature`.
        progress: called with (images done, images).

    Returns:
        The layers of which it could be found out; none where the model has no gradients.
    """
    try:
        return _measured(model, changes, images, batch_size, threads, temperature, progress)
    except OnnxEsnError as error:
        log.info("no gradients: %s", error)
        return {}


def _measured(
    model: onnx.ModelProto,
    changes: Mapping[str, Sequence[Change]],
    images: CalibrationSet,
    batch_size: int,
    threads: int | None,
    temperature: float,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Floats]:
    outside = any_outside(model)
    model = model if outside else in_float32(model)
    if outside or model.ByteSize() + _size(changes) > _MOST_STORED:
        log.info("no gradients: the weights do not fit into one more model")
        return {}
    outputs = judged_tensors(model)
    plain = Session(model, outputs=outputs, threads=threads)
    images = images.for_inputs(plain.inputs)
    wanted = collect_outputs(plain, images, batch_size)
    if not all(x.dtype == np.float32 and x.shape[:1] == (len(images),) for x in wanted.values()):
        log.info("no gradients: outputs are not of floats, or do not follow the images")
        return {}
    if not all(map(is_quadratic, wanted.values())):
        log.info("no gradients: an output's divergence is not quadratic")
        return {}
    (first,) = images.take(1).batches(1)
    one = {name: x.shape for name, x in first.feeds.items()}
    ready = differentiable(model)
    batch = images.fixed_batch or min(_fitting(ready, one), batch_size, len(images))
    graph = _graph(ready, changes, outputs, {k: (batch, *shape[1:]) for k, shape in one.items()})
    if not graph.found:
        return {}
    rng = np.random.default_rng(_SEED)
    directions = {
        graph.feeds[name]: random_directions(x, rng, temperature).astype(np.float32)
        for name, x in wanted.items()
    }
    tensors = [tensor for made in graph.found.values() for tensor in made]
    session = Session(graph.model, outputs=tensors, threads=threads)
    sums = {
        name: np.zeros((len(made), changes[name][0].shift.size))
        for name, made in graph.found.items()
    }
    done = 0
    for part in images.batches(batch):
        missing = batch - part.count
        given = {
            k: _zeros_behind(u[done : done + part.count], missing) for k, u in directions.items()
        }
        feeds = {k: _last_again(x, batch - len(x)) for k, x in part.feeds.items()}
        results = session.run({**feeds, **given})
        for name, made in graph.found.items():
            for way, tensor in enumerate(made):
                # What only fills the batch has 0 for a direction.
                each = np.asarray(results[tensor], np.float64)
                each = each.reshape(batch, -1, sums[name].shape[1])
                sums[name][way] += np.square(each.sum(axis=1)).sum(axis=0)
        done += part.count
        if progress is not None:
            progress(done, len(images))
    scale = 1.0 / (done * len(outputs))
    return {name: x * scale for name, x in sums.items() if np.isfinite(x).all()}


def _size(changes: Mapping[str, Sequence[Change]]) -> int:
    return sum(4 * x.rows.size for made in changes.values() for x in made)


def _zeros_behind(x: Array, missing: int) -> Array:
    return np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])


def _last_again(x: Array, missing: int) -> Array:
    return np.concatenate([x, *[x[-1:]] * missing])


def _fitting(model: onnx.ModelProto, sizes: Mapping[str, Shape]) -> int:
    """How many samples fit into memory together, forward and back."""
    facts = infer_facts(model, sizes, Constants(model))
    made = (facts.shapes.get(name) for node in model.graph.node for name in node.output)
    size = 4 * _KEPT * sum(math.prod(shape) for shape in made if shape is not None)
    return max(1, min(_BYTES // max(size, 1), _MOST_AT_ONCE))


def _graph(
    model: onnx.ModelProto,
    changes: Mapping[str, Sequence[Change]],
    outputs: Sequence[str],
    sizes: Mapping[str, Shape],
) -> _Graph:
    """The model, the gradients of its layers' outputs and what the changes make of them."""
    graph = model.graph
    fuse_pads(graph, infer_facts(model, sizes, Constants(model)))
    facts = infer_facts(model, sizes, Constants(model))
    fix_inputs(graph, facts, sizes)
    batch = next(iter(sizes.values()))[0]
    found = find_layers(model, Constants(model), facts)
    layers = [x for x in found if x.name in changes and _by_sample(x, facts, batch)]
    nodes = {x.name: graph.node[x.index] for x in layers}
    scalar, feeds = _append_scalar(model, facts, outputs)
    back = append_backward(model, facts, scalar, [x.output for x in layers])
    for node, reason in back.blocked:
        log.info("%s: %s", node, reason)
    tape = Tape(graph, facts, np.float32)
    results: dict[str, list[str]] = {}
    del graph.output[:]
    for layer in layers:
        gradient = back.gradients.get(layer.output)
        if gradient is None:
            continue
        assert layer.output_shape is not None
        rows = (layer.output_shape[0], layer.filters)
        results[layer.name] = []
        for change in changes[layer.name]:
            made = _append_effect(tape, nodes[layer.name], layer, change, gradient)
            graph.output.append(tensor_info(made, facts, rows, TensorProto.FLOAT))
            results[layer.name].append(made)
    return _Graph(model, feeds, results)


def _by_sample(layer: Layer, facts: Facts, batch: int) -> bool:
    """Whether the first axis of a layer's outputs counts samples, or parts of them."""
    shape = layer.output_shape
    if shape is None or facts.types.get(layer.output) != TensorProto.FLOAT:
        return False
    return layer.channel_axis > 0 and shape[0] > 0 and shape[0] % batch == 0


def _append_scalar(
    model: onnx.ModelProto, facts: Facts, outputs: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Append Σ direction·output over all outputs; its name, and those of the directions."""
    tape, first = Tape(model.graph, facts, np.float32), len(model.graph.node)
    feeds, terms, given = {}, [], []
    for name in outputs:
        shape = facts.shapes.get(name)
        if shape is None:
            raise OnnxEsnError(f"the shape of '{name}' is unknown")
        feeds[name] = _DIRECTION + name
        feed = tensor_info(feeds[name], facts, shape, TensorProto.FLOAT)
        model.graph.input.append(feed)
        given += [feed, tensor_info(name, facts, shape)]
        product = tape.emit("Mul", feeds[name], name)
        terms.append(tape.reduce_sum(product, list(range(len(shape)))))
    scalar = tape.add(terms)
    infer_appended(model, facts, first, given)
    return scalar, feeds


def _append_effect(
    tape: Tape, node: onnx.NodeProto, layer: Layer, change: Change, gradient: str
) -> str:
    """Append Σ_positions gradient·(change of the outputs), (rows, M); its name."""
    assert layer.output_shape is not None
    axis = layer.channel_axis
    weight = np.ascontiguousarray(layer.from_filters(change.rows))
    inputs = list(node.input[:2])
    inputs[layer.slot] = tape.store(weight)
    attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    moved = tape.emit(node.op_type, *inputs, **attrs)
    along = [1] * len(layer.output_shape)
    along[axis] = layer.filters
    moved = tape.emit("Sub", moved, tape.constant(change.shift.reshape(along)))
    places = [i for i in range(len(along)) if i not in (0, axis)]
    return tape.reduce_sum(tape.emit("Mul", moved, gradient), places)
