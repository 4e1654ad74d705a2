"""What the layers of a model read and make on the calibration set, all in one pass over it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs
from onnx_esn.errors import VerificationError
from onnx_esn.graph.constants import Constants
from onnx_esn.numerics.cross_moments import CrossMoments, cross_moments, no_moments
from onnx_esn.passes.layerwise.following import follow, rows_per_sample
from onnx_esn.passes.layerwise.geometry import Geometry
from onnx_esn.passes.layerwise.sampling import Taken, Visit, Wanted, sample_layers
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.layerwise.targets import find_streams

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Observation:
    """What one pass over the images shows.

    Attributes:
        layers: the layers that can be followed, by name.
        taken: their outputs at some positions.
        halves: second moments of their inputs, of even and of odd images; empty where they were
            not asked for.
    """

    layers: Mapping[str, Geometry]
    taken: Mapping[str, Taken]
    halves: Mapping[str, tuple[CrossMoments, CrossMoments]]

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
) -> Observation:
    """Look at the layers of these names, as far as they can be followed.

    Args:
        model: in standard form.
        images: the set; its single input may have another name.
        names: of layers.
        options: how to gather.
        inputs: whether moments of inputs are wanted.

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
    sums: dict[str, list[CrossMoments]] = {}

    def add(name: str, x: Array, half: int) -> None:
        if not np.isfinite(x).all():
            raise VerificationError(f"{name}: its inputs are not finite (NaN or infinity)")
        G, n, d = x.shape
        mine = sums.setdefault(name, [no_moments(G, 0, d), no_moments(G, 0, d)])
        merged = mine[half].merge(cross_moments(x, np.zeros((G, n, 0), x.dtype)))
        # Those of all layers are held at once: d² numbers each.
        mine[half] = replace(merged, xx=merged.xx.astype(np.float32))

    visit: Visit | None = add if inputs else None
    taken = sample_layers(
        model,
        wanted,
        images.for_inputs(input_specs(model)),
        seed=options.seed,
        batch_size=options.batch_size,
        threads=options.threads,
        visit=visit,
        progress=options.report("reference"),
    )
    halves = {name: (sums[name][0], sums[name][1]) for name in taken if name in sums}
    return Observation(layers, taken, halves)
