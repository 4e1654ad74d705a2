"""What the layers of a model read and make on the calibration set, all in one pass over it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs
from onnx_esn.graph.constants import Constants
from onnx_esn.numerics.cross_moments import CrossMoments
from onnx_esn.passes.layerwise.following import follow, rows_per_sample
from onnx_esn.passes.layerwise.geometry import Geometry
from onnx_esn.passes.layerwise.sampling import Sampling, Taken, Wanted
from onnx_esn.passes.layerwise.shards import ShardTask, cut, one_by_one, total
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.layerwise.targets import find_streams


@dataclass(frozen=True)
class Observation:
    """What one pass over the images shows.

    Attributes:
        layers: the layers that can be followed, by name.
        taken: their outputs at some positions.
        parts: second moments of their inputs, of even images, odd ones and those held apart; empty
            where they were not asked for.
    """

    layers: Mapping[str, Geometry]
    taken: Mapping[str, Taken]
    parts: Mapping[str, tuple[CrossMoments, ...]]

    def part(self, samples: Sequence[int] | npt.NDArray[np.integer]) -> Mapping[str, Taken]:
        """What was taken of some samples."""
        return {name: taken.part(samples) for name, taken in self.taken.items()}


def observe(
    model: onnx.ModelProto,
    images: CalibrationSet,
    names: Collection[str],
    options: WalkOptions,
    *,
    inputs: bool = True,
    held: Iterable[int] = (),
) -> Observation:
    """Look at the layers of these names, as far as they can be followed.

    Args:
        model: in standard form.
        images: the set, with the views that are wanted; its single input may have another name.
        names: of layers.
        options: how to gather.
        inputs: whether moments of inputs are wanted.
        held: samples whose moments are wanted apart from those of the others.

    Raises:
        InferenceError: the model does not run.
        VerificationError: values that are not finite; names the layer.
    """
    layers, _ = follow(model, names)
    if not layers:
        return Observation({}, {}, {})
    made = {name for node in model.graph.node for name in node.output}
    streams = {}
    if options.streams:
        plain = [g.layer for g in layers.values()]
        streams = find_streams(model, Constants(model), plain)
    rows = rows_per_sample(layers, len(images), options)
    wanted = {}
    for name, geometry in layers.items():
        tensors = [geometry.layer.output]
        if name in streams and streams[name].total in made:
            tensors.append(streams[name].total)
        wanted[name] = Wanted(geometry, rows[name], tuple(tensors))
    known, key, among = options.known, None, sorted(map(int, held))
    if known is not None:
        how = (inputs, among, options.seed, options.batch_size, options.per_weight, options.streams)
        key = known.key(model, images, list(layers), *how)
        if key is not None and (found := known.get(key)) is not None:
            return Observation(layers, *found)
    apart = frozenset(among)
    sampling = Sampling(
        wanted, options.seed, options.batch_size, options.threads, inputs, apart, images.halves
    )
    task = ShardTask(model, sampling)
    images = images.for_inputs(input_specs(model))
    shards = cut(images, wanted, inputs=inputs)
    if options.spread is not None and len(shards) > 1:
        parts = options.spread(task, images, shards)
    else:
        parts = one_by_one(task, images, shards, options.report("reference"))
    sums = total(parts)
    taken = sums.taken
    moments = {name: tuple(mine) for name, mine in sums.parts.items()}
    if known is not None and key is not None:
        known.put(key, (taken, moments))
    return Observation(layers, taken, moments)
