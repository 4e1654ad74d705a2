"""The verb: pruning against quantization, by weights, by outputs, by channels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source, input_specs, open_set
from onnx_esn.errors import InputError, OptionError
from onnx_esn.graph.model_file import check_model, load_model
from onnx_esn.graph.model_source import ModelSource, plain_source, source_name
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.allocation.measuring import Losses, measure_losses
from onnx_esn.passes.analysis.channels import analyse_channels
from onnx_esn.passes.analysis.outputs import OutputAnalysis, analyse_outputs
from onnx_esn.passes.analysis.tensors import analyse_tensors
from onnx_esn.passes.analysis.whole_model import analyse_model
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.costs import LayerView, measured_view, not_counted
from onnx_esn.passes.layers.patterns import left_out
from onnx_esn.passes.layerwise.following import follow
from onnx_esn.passes.layerwise.statistics import WalkOptions

from .result import ModelAnalysis

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
PASSES = 2.0  # over all images, for the sensitivities


def analyze(
    model: ModelSource,
    images: Source | None = None,
    *,
    recipe: str | Path | Recipe | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shape: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelAnalysis:
    """Say of each layer whether it loses less by fewer bits or by fewer weights.

    At equal compression: n bits against n/16 of the weights at 16 bits. Without images by the
    weights alone; with images also by what the outputs lose when both are optimised for them, and
    by whole channels against bits at equal ESN'_d.

    Args:
        model: a path, or a model in memory; it is not changed.
        images: samples (see `open_set`).
        recipe: preprocessing of images.
        only, exclude: patterns of layers to look at, to leave out.
        input_shape: sizes of open axes, by input or for the only one.
        batch_size: samples at once.
        threads: threads for one operator; None leaves the choice to onnxruntime.
        seed: draws the weights, filters and blocks that are looked at where there are many.
        progress: called with what is being done, how much is done, and of how much.

    Raises:
        OptionError: options that do not fit; a recipe without images.
        ModelError: the model cannot be read, or no layer of it has weights.
        ImageSetError, RecipeError: the images do not fit.
        InferenceError: the model does not run.
    """
    if seed < 0:
        raise OptionError(f"seed {seed} is negative; give 0 or above")
    if images is None and recipe is not None:
        raise OptionError("a recipe says how to read images; give the images too")
    source = plain_source(model)
    name = Path(source_name(source)).name
    loaded = load_model(source, outside=images is None)
    check_model(loaded, name)
    proto = standard_form(loaded)
    view = _view(proto, input_shape, images)
    opened = None if images is None else open_set(images, input_specs(proto), recipe=recipe)
    excluded = left_out(view.layers, only, exclude)
    layers = [x for x in view.layers if x.name not in excluded]
    show = progress and functools.partial(progress, "weights")
    tensors, skipped = analyse_tensors(layers, view.constants, seed, show)
    skipped = [*not_counted(proto, view), *skipped]
    skipped += [Skipped(x, reason) for x, reason in excluded.items()]
    found = ModelAnalysis(name, tuple(tensors), {}, (), None, tuple(skipped), seed=seed)
    if opened is None or not tensors:
        return found
    options = WalkOptions(batch_size=batch_size, threads=threads, progress=progress)
    losses = measure_losses(
        proto,
        opened,
        passes=PASSES,
        only=only,
        exclude=exclude,
        input_shape=input_shape,
        options=options,
    )
    return _with_images(found, proto, losses, opened, progress)


def _view(
    proto: onnx.ModelProto,
    shape: Mapping[str, Sequence[int]] | Sequence[int] | None,
    images: Source | None,
) -> LayerView:
    """The layers; without images their sizes are of no matter, and need not be known."""
    from onnx_esn.graph.constants import Constants
    from onnx_esn.graph.facts import Facts
    from onnx_esn.passes.layers.costs import view_layers

    if images is None and shape is None:
        try:
            return measured_view(proto)
        except InputError:
            return view_layers(proto, Facts(sizes={}), Constants(proto))
    return measured_view(proto, shape)


def _with_images(
    found: ModelAnalysis,
    proto: onnx.ModelProto,
    losses: Losses,
    images: CalibrationSet,
    progress: Progress | None,
) -> ModelAnalysis:
    names = [name for x in found.tensors for name in x.layers]
    _, missed = follow(proto, names)
    outputs: dict[str, OutputAnalysis] = {}
    notes = [Skipped(s.node, f"outputs: {s.reason}") for s in missed]
    for index, name in enumerate(names):
        moments = losses.moments.get(name)
        if moments is not None:
            rng = np.random.default_rng([found.seed, index])
            one = analyse_outputs(name, moments, rng)
            if one is None:
                notes.append(Skipped(name, "outputs: they are the same for all images"))
            else:
                outputs[name] = one
        elif name not in {s.node for s in missed}:
            notes.append(Skipped(name, "outputs: they do not follow the batch"))
        if progress is not None:
            progress("outputs", index + 1, len(names))
    channels, more = analyse_channels(losses)
    notes += more
    return ModelAnalysis(
        found.name,
        found.tensors,
        outputs,
        tuple(channels),
        analyse_model(losses),
        (*found.skipped, *notes),
        images.name,
        len(images),
        found.seed,
    )
