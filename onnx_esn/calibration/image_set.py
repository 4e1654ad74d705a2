"""Open a calibration or evaluation set: a folder of images, ready tensors, or an open set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import ImageSetError, LabelsError, OptionError, first_few

from .arrays import load_arrays, select_arrays
from .calibration_set import Batch, CalibrationSet, Origin
from .image_files import IMAGE_SUFFIXES, find_images
from .labels import Labels, check_labels, load_label_array, load_labels
from .recipe import Recipe, default_recipe, load_recipe
from .remote import Location, RemotePath, located
from .samples import ArraySamples, ImageSamples
from .tensor_spec import (
    TensorSpec,
    check_fixed_batches,
    check_shape,
    format_shape,
    input_specs,
)

__all__ = ["Batch", "CalibrationSet", "Source", "TensorSpec", "input_specs", "open_set"]

log = logging.getLogger(__name__)

Source = str | Path | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | CalibrationSet
LabelSource = str | Path | npt.NDArray[Any] | None

RECIPE_FILE, LABELS_FILE = "recipe.toml", "labels.csv"
MAX_UNREADABLE = 0.1


def open_set(
    source: Source,
    inputs: Sequence[TensorSpec],
    *,
    recipe: str | Path | Recipe | None = None,
    labels: LabelSource = None,
) -> CalibrationSet:
    """Open samples for a model with ``inputs``; everything is checked before the first batch.

    Args:
        source: a folder of images (any depth), a ``.npy`` or ``.npz`` file, an array ``N x …``,
            arrays by input name (``x`` stands for a single input, ``y`` for labels), or a set
            that is open already and is to feed another model.
        inputs: from `input_specs` or `Session.inputs`.
        recipe: preprocessing of images; without it ``recipe.toml`` in the folder, and without
            that defaults taken from the model, with a warning.
        labels: class indices as an array or ``.npy``, or a CSV file for images; without it
            ``labels.csv`` in the folder, or ``y`` of a ``.npz``.

    Raises:
        ImageSetError: missing, empty, too many unreadable images, or not fitting the model.
        RecipeError: the recipe is wrong.
        LabelsError: the labels are wrong.
        OptionError: a recipe for something that is not a folder of images.
    """
    if not inputs:
        raise ImageSetError("the model has no inputs to feed")
    check_fixed_batches(inputs)
    if isinstance(source, (str, Path)):
        path = located(source)
        tensors = path.suffix.lower() in (".npy", ".npz")
        if isinstance(path, RemotePath) and not tensors:
            return _open_folder(path, inputs, recipe, labels)
        if isinstance(path, Path) and path.is_dir():
            return _open_folder(path, inputs, recipe, labels)
        if isinstance(path, Path) and not path.exists():
            raise ImageSetError(f"{path}: no such folder or file")
        if not tensors:
            raise ImageSetError(f"{path}: is neither a folder of images nor a .npy or .npz file")
    if recipe is not None:
        raise OptionError(
            "a recipe applies to a folder of images only; tensors are used as they are"
        )
    if isinstance(source, CalibrationSet):
        opened = source.for_inputs(inputs)
        if labels is not None:
            opened.labels = _label_array(labels, opened)
        return opened
    if isinstance(source, (str, Path)):
        arrays = _open_arrays(load_arrays(path), inputs, labels, path.name, str(path))
        arrays.origin = Origin(_again(path), None)
        return arrays
    if not isinstance(source, (np.ndarray, Mapping)):
        raise ImageSetError(f"a {type(source).__name__} is not a path, an array or arrays by name")
    return _open_arrays(source, inputs, labels, "arrays", "the arrays given")


def _open_arrays(
    arrays: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
    inputs: Sequence[TensorSpec],
    labels: LabelSource,
    name: str,
    origin: str,
) -> CalibrationSet:
    chosen, own_labels = select_arrays(arrays, inputs, origin)
    samples = ArraySamples(chosen)
    opened = CalibrationSet(name, inputs, samples)
    given = own_labels if labels is None else labels
    if given is not None:
        opened.labels = _label_array(given, opened)
    return opened


def _again(path: Location) -> str:
    return path.url if isinstance(path, RemotePath) else str(path.resolve())


def _name(folder: Location) -> str:
    name = folder.name if isinstance(folder, RemotePath) else folder.resolve().name
    return name or str(folder)


def _open_folder(
    folder: Location,
    inputs: Sequence[TensorSpec],
    recipe: str | Path | Recipe | None,
    labels: LabelSource,
) -> CalibrationSet:
    if len(inputs) > 1:
        names = first_few([spec.name for spec in inputs])
        raise ImageSetError(
            f"{folder}: a folder of images feeds one input, but the model has {len(inputs)} "
            f"({names}); pass a .npz file with one array for each, by name"
        )
    spec = inputs[0]
    files = find_images(folder)
    if not files and not folder.exists():
        raise ImageSetError(f"{folder}: no such folder or file")
    if not files:
        listed = " ".join(sorted(IMAGE_SUFFIXES))
        raise ImageSetError(f"{folder}: holds no images (looked at any depth for {listed})")
    chosen, warnings = _choose_recipe(folder, spec, recipe)
    samples = ImageSamples(folder, spec.name, chosen)
    samples.scan(files)
    _check_readable(folder, samples, len(files))
    _check_shapes(folder, samples, spec, chosen)
    log.info("%s: %d images, %s", folder, len(samples), chosen.describe())
    return CalibrationSet(
        _name(folder),
        inputs,
        samples,
        labels=_folder_labels(folder, files, samples, labels),
        files=samples.files,
        skipped=samples.skipped,
        warnings=warnings,
        origin=Origin(_again(folder), chosen),
    )


def _choose_recipe(
    folder: Location, spec: TensorSpec, recipe: str | Path | Recipe | None
) -> tuple[Recipe, list[str]]:
    if isinstance(recipe, Recipe):
        return recipe, []
    if recipe is not None:
        return load_recipe(recipe), []
    if (folder / RECIPE_FILE).is_file():
        return load_recipe(folder / RECIPE_FILE), []
    taken = default_recipe(spec)
    warning = (
        f"{folder}: no {RECIPE_FILE} and no recipe given; taken from the model input "
        f"'{spec.name}' ({spec.describe_shape()}) and usual values: {taken.describe()}"
    )
    log.warning(warning)
    return taken, [warning]


def _check_readable(folder: Location, samples: ImageSamples, total: int) -> None:
    bad = len(samples.skipped)
    if not bad or (len(samples) and bad <= MAX_UNREADABLE * total):
        return
    listed = "; ".join(f"{file}: {reason}" for file, reason in samples.skipped[:3])
    raise ImageSetError(
        f"{folder}: {bad} of {total} images cannot be used (at most {MAX_UNREADABLE:.0%} may be "
        f"skipped): {listed}{'; …' if bad > 3 else ''}"
    )


def _check_shapes(
    folder: Location, samples: ImageSamples, spec: TensorSpec, recipe: Recipe
) -> None:
    for shape, file in samples.shapes.items():
        hint = f" (after the recipe: {recipe.describe()}); correct the recipe's resize, crop, "
        check_shape((1, *shape), spec, str(folder / file), hint + "channels or layout")
    if len(samples.shapes) > 1:
        (first, file), (second, other) = list(samples.shapes.items())[:2]
        raise ImageSetError(
            f"{folder}: images differ in shape after the recipe: {file} is {format_shape(first)}, "
            f"{other} is {format_shape(second)}; give the recipe a crop or a resize of two numbers"
        )


def _folder_labels(
    folder: Location, files: Sequence[str], samples: ImageSamples, labels: LabelSource
) -> Labels | None:
    if labels is None:
        if not (folder / LABELS_FILE).is_file():
            return None
        return load_labels(
            folder / LABELS_FILE, samples.files, [file for file, _ in samples.skipped]
        )
    if isinstance(labels, (str, Path)) and _label_file(labels).suffix.lower() != ".npy":
        skipped = [file for file, _ in samples.skipped]
        return load_labels(_label_file(labels), samples.files, skipped)
    array = load_label_array(labels)
    if len(samples.skipped) and array.shape[:1] == (len(files),):
        readable = set(samples.files)
        array = array[[file in readable for file in files]]
    return check_labels(array, len(samples), str(folder))


def _label_file(labels: str | Path) -> Location:
    try:
        return located(labels)
    except ImageSetError as error:
        raise LabelsError(str(error)) from error


def _label_array(labels: str | Path | npt.NDArray[Any], opened: CalibrationSet) -> Labels:
    if isinstance(labels, (str, Path)) and _label_file(labels).suffix.lower() != ".npy":
        path = _label_file(labels)
        if opened.files is None:
            raise LabelsError(
                f"{path}: tensors have no file names; give their labels as .npy or as 'y'"
            )
        return load_labels(path, opened.files, [file for file, _ in opened.skipped])
    return check_labels(load_label_array(labels), len(opened), opened.name)
