"""Decode one image file by a recipe.

Choices that a decoder has to make: the first frame of an animation; EXIF rotation applied;
transparency composited on black; 16-bit samples scaled to 0..255 (in float, not clipped, not
rounded); 32-bit integer and floating-point pixels refused, for nobody can know their range.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from onnx_esn.errors import ImageSetError

from .image_files import find_images
from .recipe import Recipe
from .remote import Location, RemotePath, located

__all__ = ["UnreadableImageError", "decode_image", "find_images", "load_pixels", "normalize"]

# Only these decoders may look at a file, whatever its name says.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF")
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


class UnreadableImageError(ImageSetError):
    """One file is not a usable image; a set skips it and keeps the reason."""


class _QuietPillow:
    """Silence Pillow's warnings about odd files, also when several threads decode at once.

    `warnings.catch_warnings` alone would restore the filters in the wrong order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._users += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._filters.__exit__(kind, error, trace)


_quiet = _QuietPillow()
# Several threads decode; each of these pictures takes up to a gigabyte on the way.
_LARGE = 1 << 24  # pixels
_one_by_one = threading.Lock()


def decode_image(path: str | Location, recipe: Recipe) -> npt.NDArray[np.float32]:
    """The image as the recipe wants it: float32, ``C x H x W`` or ``H x W x C`` by its layout.

    Raises:
        UnreadableImageError: missing, damaged, over Pillow's pixel limit, of an unusable pixel
            type, or smaller than the crop.
    """
    values: npt.NDArray[np.float32] = normalize(load_pixels(path, recipe)[None], recipe)[0]
    return values


def load_pixels(path: str | Location, recipe: Recipe) -> npt.NDArray[Any]:
    """Everything of the recipe but its arithmetic: resized, cropped ``H x W x C``, 0..255.

    uint8, or float32 where the file has 16 bits per sample.

    Raises:
        UnreadableImageError: see `decode_image`.
    """
    file = _file(located(path))
    try:
        with _quiet, Image.open(file, formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels are over the limit of {limit}"
                )
            alone = _one_by_one if image.width * image.height > _LARGE else nullcontext()
            with alone:
                image.seek(0)
                image.load()
                upright = _upright(image)
                # Older Pillow opens 16-bit PNG in its 32-bit mode.
                wide = image.mode == "I" and image.format == "PNG"
                return _geometry(_colours(upright, recipe, wide), recipe)
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UnreadableImageError(_reason(error)) from error


def _file(path: Location) -> Path | io.BytesIO:
    """What Pillow opens."""
    if isinstance(path, RemotePath):
        try:
            return io.BytesIO(path.read_bytes())
        except FileNotFoundError as error:
            raise UnreadableImageError("missing, or not a regular file") from error
    if not path.is_file():
        raise UnreadableImageError("missing, or not a regular file")
    return path


def normalize(pixels: npt.NDArray[Any], recipe: Recipe) -> npt.NDArray[np.float32]:
    """``(x * scale - mean) / std`` in the recipe's channel order and layout, float32.

    Args:
        pixels: ``N x H x W x C`` as `load_pixels` gives them.
        recipe: its channels must be those the pixels were loaded with.
    """
    if recipe.channels == "bgr":
        pixels = pixels[..., ::-1]
    if recipe.layout == "nchw":
        pixels = pixels.transpose(0, 3, 1, 2)
    values = np.array(pixels, dtype=np.float32, order="C")
    axes = (-1, 1, 1) if recipe.layout == "nchw" else (-1,)
    values *= np.float32(recipe.scale)
    values -= np.asarray(recipe.mean, np.float32).reshape(axes)
    values /= np.asarray(recipe.std, np.float32).reshape(axes)
    return values


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged at its start"
    text = str(error).strip().partition("\n")[0]
    if text and isinstance(error, (OSError, ValueError, SyntaxError, Image.DecompressionBombError)):
        return text
    return f"damaged ({type(error).__name__}: {text})"


def _upright(image: Image.Image) -> Image.Image:
    # In place: of a large picture each copy is hundreds of megabytes.
    with suppress(Exception):  # the pixels are fine even where the EXIF block is not
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _colours(image: Image.Image, recipe: Recipe, wide: bool) -> Image.Image:
    """Mode L, RGB, or F with 0..255 for one channel of 16 bits."""
    if wide or image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise UnreadableImageError(f"{kind} pixels have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    mode = "L" if recipe.channels == "gray" else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _geometry(image: Image.Image, recipe: Recipe) -> npt.NDArray[Any]:
    width, height = image.size
    if isinstance(recipe.resize, int):
        short, side = min(width, height), recipe.resize
        width, height = int(width * side / short), int(height * side / short)
    elif recipe.resize is not None:
        height, width = recipe.resize
    if (width, height) != image.size:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:  # a strip of one pixel's height
            raise UnreadableImageError(
                f"resizing to {width} x {height} is over the limit of {limit}"
            )
        image = image.resize((width, height), _FILTERS[recipe.interpolation])
    if recipe.crop is not None:
        h, w = recipe.crop if isinstance(recipe.crop, tuple) else (recipe.crop, recipe.crop)
        if h > height or w > width:
            raise UnreadableImageError(
                f"{height} x {width} pixels are less than the crop {h} x {w}"
            )
        top, left = round((height - h) / 2), round((width - w) / 2)
        image = image.crop((left, top, left + w, top + h))
    pixels = np.array(image)
    if pixels.dtype != np.uint8:
        np.clip(pixels, 0, 255, out=pixels)  # bicubic and lanczos overshoot
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return np.repeat(pixels, recipe.channel_count, 2) if pixels.shape[2] == 1 else pixels
