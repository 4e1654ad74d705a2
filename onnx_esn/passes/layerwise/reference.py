"""The reference's outputs at some positions of each layer, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Session, iterate_outputs
from onnx_esn.calibration.patches import choose_positions
from onnx_esn.passes.layerwise.geometry import Geometry, area

Array = npt.NDArray[np.generic]
Indices = npt.NDArray[np.int64]
_MEMORY = 1 << 28  # bytes of one batch's tensors


@dataclass(frozen=True)
class Wanted:
    """What to take of one layer.

    Attributes:
        geometry: of the layer in the reference.
        rows: output positions to take of each sample, at most.
        kept: the channels that the compressed model has left, or None for all.
        tensors: names of tensors shaped like the layer's output: the output itself and, perhaps,
            the sum that it goes into.
    """

    geometry: Geometry
    rows: int
    kept: Indices | None
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Taken:
    """Samples of one layer: where, and of each tensor the outputs (n, M) of each sample."""

    places: tuple[int, ...]
    at: list[Indices]
    outputs: dict[str, list[Array]]


def sample_reference(
    model: onnx.ModelProto,
    wanted: Mapping[str, Wanted],
    images: CalibrationSet,
    *,
    seed: int,
    batch_size: int,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Taken]:
    """Samples by layer name; layers whose tensors do not follow the batch are left out.

    Raises:
        InferenceError: the reference does not run, or makes NaN or infinity.
    """
    names = sorted({name for w in wanted.values() for name in w.tensors})
    session = Session(model, outputs=names, threads=threads)
    images = images.for_inputs(session.inputs)
    if images.fixed_batch is None:
        one = session.run(next(images.take(1).batches(1)).feeds)
        sample = sum(getattr(value, "nbytes", 0) for value in one.values())
        batch_size = max(1, min(batch_size, _MEMORY // max(sample, 1)))
    taken: dict[str, Taken] = {}
    missing: set[str] = set()
    done = 0
    for outputs in iterate_outputs(session, images, batch_size):
        size = min(images.fixed_batch or batch_size, len(images) - done)
        for name, want in wanted.items():
            values = [outputs[tensor] for tensor in want.tensors]
            places = [want.geometry.places(value, size) for value in values]
            if places[0] is None:
                missing.add(name)
                continue
            # A sum that broadcasts the layer's output is no stream.
            alike = [t for t, p in zip(want.tensors, places, strict=True) if p == places[0]]
            entry = taken.setdefault(name, Taken(places[0], [], {t: [] for t in alike}))
            if entry.places != places[0] or list(entry.outputs) != alike:
                missing.add(name)
                continue
            for i in range(size):
                at = choose_positions(seed, done + i, area(places[0]), want.rows)
                entry.at.append(at)
                for tensor in alike:
                    rows = want.geometry.outputs_at(outputs[tensor], size, i, at)
                    rows = rows if want.kept is None else rows[:, want.kept]
                    entry.outputs[tensor].append(np.ascontiguousarray(rows))
        done += size
        if progress is not None:
            progress(done, len(images))
    return {name: entry for name, entry in taken.items() if name not in missing}
