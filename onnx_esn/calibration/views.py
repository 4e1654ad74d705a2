"""More views of few images: rectangles of them, and of two side by side.

What a few dozen images say of the inputs of a layer is too much about these images. Rectangles of
them, scaled to their size, and two beside each other show other mixtures of what they hold, and
second moments of all these views are nearer to those of other images. Nothing is mirrored: letters
are not, nor is what stands upright. A view is drawn from the seed, the image and the view's number
alone, so that it is the same in every part of a set and in every process.

Source: rectangles as Szegedy et al. (2015) train on them; two images in one as Yun et al. (2019),
"CutMix", here with a straight cut and without labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .recipe import Recipe

Indices = npt.NDArray[np.intp]
Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]

AREA = 0.4  # of an image, at least
ASPECT = 4 / 3  # how much wider or higher a rectangle may be than the image, in proportion
JOINED = 0.5  # share of the views that show two images
CUT = 0.25  # of width or height, which each of two images gets at least
SMALLEST = 16  # pixels; smaller things are no pictures
_CHANNELS = 4

FEW = 128  # images, at most, of which further views are taken unasked
VIEWS = 4  # of each of them


@dataclass(frozen=True)
class Views:
    """Which views the samples of a set are.

    Attributes:
        image: (n,) number of the image in the set that the views were made of.
        number: (n,) of the view among those of its image; 0 is the image as it is.
        mate: (n,) index of the sample that stands beside it where two are joined.
        half: (n,) 0 or 1: in which half of the set the image is, with all its views.
        seed: draws them.
    """

    image: Indices
    number: Indices
    mate: Indices
    half: Indices
    seed: int

    def part(self, rows: Indices) -> Views:
        """Of some samples."""
        return Views(
            self.image[rows], self.number[rows], self.mate[rows], self.half[rows], self.seed
        )

    def shown(
        self,
        rows: Indices,
        own: Mapping[str, Array],
        mates: Mapping[str, Array],
        recipe: Recipe | None,
    ) -> dict[str, Array]:
        """What the samples in these rows show, of their images and of those beside them."""
        found = {}
        for name, x in own.items():
            last = channels_last(x, recipe)
            if last is None:
                found[name] = x
                continue
            made = x.astype(np.float32)
            for i, row in enumerate(rows):
                if self.number[row]:
                    rng = np.random.default_rng((self.seed, self.image[row], self.number[row]))
                    made[i] = _view(x[i], mates[name][i], last, rng)
            found[name] = made
        return found


def usual_views(images: int) -> int:
    """How many views of each of so many images are taken where nothing is said.

    Where there are more, further views gained nothing that could be relied on.
    """
    return VIEWS if images <= FEW else 1


def channels_last(x: Array, recipe: Recipe | None) -> bool | None:
    """Whether samples (N, …) are pictures with their channels last; None: they are no pictures."""
    if x.ndim != 4 or x.dtype.kind not in "fiu":
        return None
    guess = "nhwc" if x.shape[3] <= _CHANNELS < x.shape[1] else "nchw"
    last = (guess if recipe is None else recipe.layout) == "nhwc"
    _, height, width = (x.shape[3], *x.shape[1:3]) if last else x.shape[1:]
    return last if min(height, width) >= SMALLEST else None


def all_views(indices: Indices, count: int, seed: int, apart: Collection[int]) -> Views:
    """``count`` views of each of n images: first all as they are, then all once more, and so on.

    Args:
        indices: (n,) where the images are among the samples.
        count: of each.
        seed: draws them.
        apart: numbers of images that no other one is shown beside, nor they beside others.
    """
    n = len(indices)
    image = np.tile(np.arange(n), count)
    number = np.repeat(np.arange(count), n)
    half = np.arange(n) % 2
    kind = half + 2 * np.isin(np.arange(n), sorted(apart))
    alike = {k: np.flatnonzero(kind == k) for k in np.unique(kind)}
    mate = np.empty(n * count, np.intp)
    for row in range(n * count):
        rng = np.random.default_rng((seed, image[row], number[row], 1))
        mate[row] = indices[rng.choice(alike[kind[image[row]]])]
    return Views(image, number, mate, half[image], seed)


def _view(x: Array, mate: Array, last: bool, rng: np.random.Generator) -> Array:
    """A view of x, (C, H, W) or (H, W, C); its mate has a part of it where that is drawn."""
    own, other = (np.moveaxis(a, -1, 0) if last else a for a in (x, mate))
    height, width = own.shape[1:]
    box, beside = _rectangle(height, width, rng), _rectangle(height, width, rng)
    joined, upright = rng.random() < JOINED, rng.random() < 0.5
    at = rng.uniform(CUT, 1 - CUT)
    made = np.empty(own.shape, np.float32)
    parts: Iterable[tuple[Array, Box, float, float]] = [(own, box, 0.0, 1.0)]
    if joined:
        parts = [(own, box, 0.0, at), (other, beside, at, 1.0)]
    for source, (left, top, w, h), start, stop in parts:
        if upright:
            a, b = round(start * width), round(stop * width)
            seen = (left + w * a / width, top, left + w * b / width, top + h)
            made[:, :, a:b] = _scaled(source, seen, b - a, height)
        else:
            a, b = round(start * height), round(stop * height)
            seen = (left, top + h * a / height, left + w, top + h * b / height)
            made[:, a:b] = _scaled(source, seen, width, b - a)
    return np.moveaxis(made, 0, -1) if last else made


def _rectangle(height: int, width: int, rng: np.random.Generator) -> Box:
    """Left, top, width and height of a part of a picture."""
    area, aspect = rng.uniform(AREA, 1.0), np.exp(rng.uniform(-1.0, 1.0) * np.log(ASPECT))
    w, h = min(1.0, (area * aspect) ** 0.5) * width, min(1.0, (area / aspect) ** 0.5) * height
    return rng.uniform(0.0, width - w), rng.uniform(0.0, height - h), w, h


def _scaled(x: Array, box: Box, width: int, height: int) -> Array:
    """A rectangle of pictures (C, …) at another size."""
    planes = np.ascontiguousarray(x, np.float32)
    size, way = (width, height), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(p).resize(size, way, box)) for p in planes])
