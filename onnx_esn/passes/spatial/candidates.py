"""Which layers have kernel positions to give up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.rewrite.kernel_shrinking import Room, find_room
from onnx_esn.numerics.kernel_positions import Cut, position_importance
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.costs import LayerView
from onnx_esn.passes.quantizing.quantizable import Job, find_jobs

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A weight with kernels of several positions, and the layers that use it.

    Attributes:
        job: the weight.
        importance: of each filter's positions (M, P).
        most: how far its kernels can be cut.
        fixed: why they cannot be cut, or "".
        macs: of all its layers; None where unknown.
    """

    job: Job
    importance: Floats
    most: Cut
    fixed: str
    macs: int | None

    @property
    def name(self) -> str:
        """Name of the first layer."""
        return self.job.name

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of its kernels."""
        return self.job.layers[0].kernel

    @property
    def channels(self) -> int:
        """Weights of a filter at one position."""
        return self.job.layers[0].parameters // self.importance.size


def find_candidates(
    model: onnx.ModelProto,
    view: LayerView,
    sizes: tuple[Facts, Facts],
    only: Sequence[str],
    exclude: Sequence[str],
) -> tuple[list[Candidate], list[Skipped]]:
    """The layers with something to give up, and why the others have not.

    Args:
        model: in standard form.
        view: its layers.
        sizes: facts at two sizes.
        only, exclude: patterns, as for `Prune`.

    Raises:
        OptionError: a pattern matches no layer.
    """
    jobs, skipped = find_jobs(model, view, exclude, only)
    convolutions = {x.name for x in view.layers if x.kernel}
    notes = [s for s in skipped if s.node in convolutions]
    found = []
    for job in jobs:
        layer = job.layers[0]
        if not layer.kernel:
            continue
        if math.prod(layer.kernel) == 1:
            size = "×".join(map(str, layer.kernel))
            notes += [Skipped(x.name, f"its kernel is {size}") for x in job.layers]
            continue
        importance = position_importance(job.weight.W, math.prod(layer.kernel))
        rooms = find_rooms(model, job.layers, view.constants, sizes)
        most, fixed = _most(rooms, len(layer.kernel))
        macs = [x.macs for x in job.layers]
        known = None if None in macs else sum(m or 0 for m in macs)
        found.append(Candidate(job, importance, most, fixed, known))
    return found, notes


def find_rooms(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    constants: Constants,
    sizes: tuple[Facts, Facts],
) -> dict[str, Room | str]:
    """How far each layer's kernels can be cut, or why they cannot."""
    return {x.name: find_room(model, x, constants, sizes) for x in layers}


def _most(rooms: dict[str, Room | str], rank: int) -> tuple[Cut, str]:
    """What all layers of one weight have room for."""
    reason = next((room for room in rooms.values() if isinstance(room, str)), "")
    cuts = [room.most for room in rooms.values() if isinstance(room, Room)]
    if reason:
        return Cut((0,) * rank, (0,) * rank), reason
    begin, end = zip(*((c.begin, c.end) for c in cuts), strict=True)
    return Cut(*(tuple(map(min, zip(*side, strict=True))) for side in (begin, end))), ""
