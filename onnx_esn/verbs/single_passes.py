"""The verbs that are one pass each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnx_esn.calibration import Recipe, Source
from onnx_esn.errors import OptionError
from onnx_esn.passes.annotation import Annotate, annotated_shapes
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.correcting.recalibration import Recalibrate
from onnx_esn.passes.equalizing.equalization import Equalize
from onnx_esn.passes.export import Export
from onnx_esn.passes.rotating.rotation import Rotate
from onnx_esn.verbs.opening import InputShape, Model, Progress, named_shapes, opened_plain
from onnx_esn.verbs.running import changed, from_file


@from_file
def recalibrate(
    model: Model,
    images: Source,
    *,
    reference: Model | None = None,
    method: str | None = None,
    recipe: str | Path | Recipe | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Correct the statistics of a compressed model; see `Recalibrate` for the arguments."""
    loaded = opened_plain(model)
    step = Recalibrate(
        images,
        reference=None if reference is None else opened_plain(reference, outside=True),
        method=method,  # type: ignore[arg-type]  # checked there
        recipe=recipe,
        batch_size=batch_size,
        threads=threads,
        progress=progress,
    )
    return changed(step, loaded)


@from_file
def equalize(
    model: Model, *, across: str = "homogeneous", input_shape: InputShape | None = None
) -> PassResult:
    """Scale channels so that few bits fit more of their weights; the outputs stay what they are.

    Args:
        model: path or model.
        across, input_shape: see `onnx_esn.passes.equalizing.equalization.Equalize`.
    """
    loaded = opened_plain(model)
    step = Equalize(across=across, input_shape=named_shapes(loaded, input_shape))
    return changed(step, loaded)


@from_file
def rotate(
    model: Model,
    *,
    seed: int = 0,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shape: InputShape | None = None,
) -> PassResult:
    """Bring linear tensors into the basis that few bits suit; the outputs stay what they are.

    Args:
        model: path or model.
        seed, only, exclude, input_shape: see `onnx_esn.passes.rotating.rotation.Rotate`.
    """
    if seed < 0:
        raise OptionError(f"seed {seed}: give 0 or more")
    loaded = opened_plain(model)
    shapes = named_shapes(loaded, input_shape)
    return changed(Rotate(seed, tuple(only), tuple(exclude), input_shape=shapes), loaded)


@from_file
def convert(
    model: Model, *, format: str, keep_opset: bool = False, opset: int | None = None
) -> PassResult:
    """Store a model whose weights lie on a grid in another format; it computes the same.

    Its annotation, where it has one, is renewed: it speaks of stored types.

    Args:
        model: path or model.
        format: a name in `onnx_esn.formats.FORMATS`.
        keep_opset, opset: see `onnx_esn.passes.export.Export`.
    """
    loaded = opened_plain(model)
    result = Export(format, keep_opset=keep_opset, opset=opset, strict=True)(loaded)
    shapes = annotated_shapes(loaded)
    return result if shapes is None else replace(result, model=Annotate(shapes)(result.model).model)
