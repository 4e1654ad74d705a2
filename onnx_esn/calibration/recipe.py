"""How a picture becomes a model input: the preprocessing recipe and its TOML file."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, fields
from typing import Any

from onnx_esn.errors import ImageSetError, RecipeError

from .remote import Location, located
from .tensor_spec import TensorSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Size = int | tuple[int, int] | None
Numbers = float | tuple[float, ...]

CHOICES = {
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "box"),
    "channels": ("rgb", "bgr", "gray"),
    "layout": ("nchw", "nhwc"),
}
# Where a model leaves height and width open, this many pixels.
OPEN_SIZE = 224
# Pixels are float32, in which less is 0 and more is infinite.
_LEAST, _MOST = 1.2e-38, 3.4e38
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    """Preprocessing, applied in the order of the fields.

    Attributes:
        resize: None, the length of the shorter side in pixels, or exact ``(height, width)``.
        crop: None, or the centre crop: a square of that many pixels, or ``(height, width)``.
        interpolation: the filter of ``resize``, antialiased when it shrinks.
        channels: colour order; ``gray`` is the luma of ITU-R 601.
        scale: multiplied on values 0..255.
        mean, std: ``(x * scale - mean) / std``, one number or one per channel in the order of
            ``channels``.
        layout: axes of the model input.

    Raises:
        RecipeError: naming the field and what it may be.
    """

    resize: Size = None
    crop: Size = None
    interpolation: str = "bilinear"
    channels: str = "rgb"
    scale: float = 1 / 255
    mean: Numbers = 0.0
    std: Numbers = 1.0
    layout: str = "nchw"

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            _check_choice(key, getattr(self, key), allowed)
        scale = _number("scale", self.scale)
        std = _numbers("std", self.std, self.channel_count)
        checked = {
            "resize": _size("resize", self.resize),
            "crop": _size("crop", self.crop),
            "scale": scale,
            "mean": _numbers("mean", self.mean, self.channel_count),
            "std": std,
        }
        if abs(scale) < _LEAST:
            raise RecipeError("scale = 0 turns every image into a constant; it must not be 0")
        if any(abs(x) < _LEAST for x in (std if isinstance(std, tuple) else (std,))):
            raise RecipeError("std holds a 0, which would divide by zero; it must not be 0")
        for key, value in checked.items():
            object.__setattr__(self, key, value)

    @property
    def channel_count(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.channels == "gray" else 3

    def describe(self) -> str:
        """One line for people, such as ``resize 256 (shorter side), centre crop 224, …``."""
        steps = []
        if self.resize is not None:
            size = _show(self.resize)
            shorter = " (shorter side)" if isinstance(self.resize, int) else ""
            steps.append(f"resize {size}{shorter} {self.interpolation}")
        if self.crop is not None:
            steps.append(f"centre crop {_show(self.crop)}")
        scale = "x" if self.scale == 1 else f"x*{self.scale:.6g}"
        steps.append(f"{self.channels} ({scale} - {_show(self.mean)}) / {_show(self.std)}")
        steps.append(self.layout)
        return ", ".join(steps)


def load_recipe(path: str | Location) -> Recipe:
    """Read a ``recipe.toml``; keys left out take the defaults of `Recipe`.

    Raises:
        RecipeError: naming the file, the key and the allowed values.
    """
    path = located(path)
    try:
        entries: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:  # the latter: lists in lists without end
        raise RecipeError(f"{path}: is not valid TOML: {error}") from error
    known = [field.name for field in fields(Recipe)]
    for key in entries:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            allowed = ", ".join(known)
            raise RecipeError(f"{path}: unknown key '{key}'{hint} (allowed: {allowed})")
    try:
        return Recipe(**entries)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def default_recipe(spec: TensorSpec) -> Recipe:
    """The recipe taken where none is given: size, layout and channels from the model's input.

    ImageNet mean and standard deviation for 3 channels, 0.5 and 0.5 for 1; an unsigned 8-bit input
    gets the plain 0..255 values. Open height and width become 224.

    Raises:
        ImageSetError: images cannot feed this input (not rank 4, not 1 or 3 channels, integers).
    """
    shape = spec.shape or (None, None, None, None)
    if len(shape) != 4:
        raise _unfit(spec, "it does not have the four axes of an image batch")
    layout = "nhwc" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "nchw"
    channel, height, width = shape[1:] if layout == "nchw" else (shape[3], shape[1], shape[2])
    if isinstance(channel, int) and channel not in (1, 3):
        raise _unfit(spec, f"it has {channel} channels and images have 1 or 3")
    if spec.dtype.kind in "iub" and spec.dtype != "uint8":
        raise _unfit(
            spec, f"its type is {spec.dtype}; give a recipe with the scale and mean it needs"
        )
    sides = [side for side in (height, width) if isinstance(side, int)] or [OPEN_SIZE]
    h = height if isinstance(height, int) else sides[0]
    w = width if isinstance(width, int) else sides[0]
    values: dict[str, Any]
    if spec.dtype == "uint8":
        values = {"scale": 1.0}
    elif channel == 1:
        values = {"mean": 0.5, "std": 0.5}
    else:
        values = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return Recipe(
        # A square keeps the aspect ratio; for other shapes the shorter side need not cover them.
        resize=h if h == w else (h, w),
        crop=h if h == w else None,
        channels="gray" if channel == 1 else "rgb",
        layout=layout,
        **values,
    )


def _unfit(spec: TensorSpec, why: str) -> ImageSetError:
    return ImageSetError(
        f"images cannot feed the model input '{spec.name}' ({spec.describe_shape()}): {why}; "
        "or pass ready tensors as .npy or .npz"
    )


def _text(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _check_choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RecipeError(f"{key} = {_text(value)} is not one of {', '.join(allowed)}")


def _size(key: str, value: object) -> Size:
    if value is None:
        return None
    sides: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides) or (
        isinstance(value, (list, tuple)) and len(value) != 2
    ):
        raise RecipeError(
            f"{key} = {_text(value)} must be a positive whole number of pixels or [height, width]"
        )
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else int(sides[0])


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MOST:
        raise RecipeError(f"{key} = {_text(value)} must be a finite number")
    return float(value)


def _numbers(key: str, value: object, channels: int) -> Numbers:
    if not isinstance(value, (list, tuple)):
        return _number(key, value)
    if len(value) not in (1, channels):
        allowed = "one number" if channels == 1 else f"one number or {channels} numbers"
        raise RecipeError(f"{key} holds {len(value)} numbers; it must be {allowed} here")
    return tuple(_number(key, item) for item in value)


def _show(value: Size | Numbers) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{item:g}" for item in value) + "]"
    return f"{value:g}"
