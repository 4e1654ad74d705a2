"""How much is tried to meet a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError

# What a channel's loss counts against a bit's.
NO_PRUNING = math.inf
NEEDED = (1.0,)  # where channels have to go

JUDGED = 0.2  # share of the images that judges
LEAST_TO_JUDGE = 10


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        passes: over all images, for the sensitivities; each trial is one more, and the result.
        scales: what a channel's loss counts against a bit's, in each trial. Channels do not go
            unless it was seen on images that this is better, or the budget cannot be met without.
    """

    passes: float
    scales: tuple[float, ...]


EFFORTS = {
    "fast": Effort(2.0, (NO_PRUNING,)),
    "balanced": Effort(5.0, (NO_PRUNING, 1.0)),
    "thorough": Effort(40.0, (NO_PRUNING, 4.0, 2.0, 1.0, 0.5)),
}


def check_effort(name: str) -> None:
    """Raise `OptionError` for a name that is not among `EFFORTS`."""
    if name not in EFFORTS:
        raise OptionError(f"effort {name!r} is not known; there are: {', '.join(EFFORTS)}")


def judging_images(images: CalibrationSet, effort: str, *, prune: bool) -> list[int]:
    """Indices of the images that judge trials; none where there is one way only, or too few."""
    if not prune or len(EFFORTS[effort].scales) < 2 or len(images) < LEAST_TO_JUDGE:
        return []
    return [int(i) for i in images.split_indices(JUDGED)[1]]
