"""What the verbs are given: models, images and shapes, opened and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source, input_specs, open_set
from onnx_esn.errors import OptionError
from onnx_esn.graph.model_file import check_model, load_model
from onnx_esn.graph.model_source import ModelSource, plain_source, source_name
from onnx_esn.graph.standard_form import standard_form

Model = ModelSource
Progress = Callable[[str, int, int], None]
InputShape = Sequence[int] | Mapping[str, Sequence[int]]


# A model that is on its way from its file to a verb: checked, and nobody has changed it.
_handed_on: list[onnx.ModelProto] = []


def opened(model: Model, *, outside: bool = False, hand_on: bool = False) -> onnx.ModelProto:
    """Load a model and check it.

    Args:
        model: the model.
        outside: see `load_model`.
        hand_on: it goes to a verb next, which need not check it again.

    Raises:
        ModelError: it cannot be read, or is invalid.
    """
    source = plain_source(model)
    loaded = load_model(source, outside=outside)
    known = any(loaded is other for other in _handed_on)
    _handed_on.clear()
    if not known:
        check_model(loaded, source_name(source))
    if hand_on:
        _handed_on.append(loaded)
    return loaded


def opened_plain(model: Model, *, outside: bool = False) -> onnx.ModelProto:
    """The same in standard operators: local functions inlined, what onnxruntime fused apart."""
    return standard_form(opened(model, outside=outside))


def open_images(
    model: onnx.ModelProto,
    images: Source | None,
    recipe: str | Path | Recipe | None = None,
    labels: str | Path | npt.NDArray[Any] | None = None,
) -> CalibrationSet | None:
    """Open a calibration set for a model; None stays None."""
    if images is None:
        if recipe is not None:
            raise OptionError("a recipe says how to read images; give the images too")
        return None
    return open_set(images, input_specs(model), recipe=recipe, labels=labels)


def named_shapes(
    model: onnx.ModelProto, shape: InputShape | None
) -> Mapping[str, Sequence[int]] | None:
    """Shapes by input name; a single shape is that of the only input."""
    if shape is None or isinstance(shape, Mapping):
        return shape
    names = [spec.name for spec in input_specs(model)]
    if len(names) != 1:
        raise OptionError(
            f"the model has {len(names)} inputs; give a shape for each: "
            + ", ".join(f"{n}:1,3,224,224" for n in names)
        )
    return {names[0]: tuple(shape)}
