"""The verb: everything that differs between two models, and how far apart they are on images."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnx_esn.calibration import (
    CalibrationSet,
    Latency,
    Recipe,
    Source,
    open_set,
)
from onnx_esn.errors import InferenceError, ModelError, OptionError
from onnx_esn.evaluation.costs import file_bytes
from onnx_esn.evaluation.matching import check_inputs, common_batch, match_outputs, unique_names
from onnx_esn.evaluation.turns import Runnable, any_large, judging, latencies
from onnx_esn.graph.model_file import check_model, load_model
from onnx_esn.graph.model_source import ModelSource, plain_source

from .changes import LayerDifference, ModelFigures, OutputsDifference
from .layers import LayerPair, View, layer_differences, pair_layers, view_model
from .nodes import node_changes
from .outputs import output_agreements
from .pairing import pair_nodes
from .result import Difference
from .settings import setting_changes
from .signals import layer_signals
from .tensors import tensor_changes
from .wiring import Wiring

Model = onnx.ModelProto | str | os.PathLike[str]
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class _Samples:
    """The same samples for both models, and what the models made of them."""

    sets: tuple[CalibrationSet, CalibrationSet]
    size: int
    outputs: OutputsDifference

    def shape(self, side: int) -> dict[str, tuple[int, ...]]:
        """Shape of one sample, by input of one model."""
        feeds = next(self.sets[side].batches(1)).feeds
        return {name: tuple(feed.shape) for name, feed in feeds.items()}


def compare(
    a: ModelSource,
    b: ModelSource,
    images: Source | None = None,
    *,
    recipe: str | Path | Recipe | None = None,
    input_shape: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    latency: bool = False,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Difference:
    """Return what differs between a model and, say, its compressed form.

    Nodes pair by name, else by what they read; layers as their nodes do. Without images the models
    need not run at all.

    Args:
        a: the model before: a path, or a model in memory.
        b: the model after.
        images: samples for both (see `open_set`): adds the outputs and each layer's output.
        recipe: preprocessing of images.
        input_shape: sizes of open axes, by input or for the only one.
        batch_size: samples at once.
        threads: threads for one operator; None leaves the choice to onnxruntime.
        latency: time one run of both models, in turns; needs images.
        names: what to call the models; their files' names by default.
        progress: called with what is being done, the samples done and their total.

    Raises:
        OptionError: options that do not fit, models that do not take or give the same.
        ImageSetError, RecipeError: the images do not fit.
        ModelError: a model cannot be read.
        InferenceError: a model does not run, or gives NaN.
    """
    if images is None and (recipe is not None or latency):
        raise OptionError("a recipe and the latency need images; give some")
    if names is not None and len(names) != 2:
        raise OptionError(f"{len(names)} names for 2 models; give one for each")
    a, b = plain_source(a), plain_source(b)
    titles = unique_names([a, b], names or (None, None))
    sizes = [_bytes(m) for m in (a, b)]
    models = [load_model(m, outside=True) for m in (a, b)]
    for model, title in zip(models, titles, strict=True):
        check_model(model, title)
    samples = None
    if images is not None:
        samples = _run((a, b), titles, images, recipe, batch_size, threads, latency, progress)
    shapes = (None, None) if samples is None else (samples.shape(0), samples.shape(1))
    views = (
        view_model(models[0], titles[0], input_shape, shapes[0]),
        view_model(models[1], titles[1], input_shape, shapes[1]),
    )
    pairs, pairing = pair_layers(*views)
    first, second = views[0].wiring, views[1].wiring
    if first.model is not models[0] or second.model is not models[1]:
        first, second = Wiring(models[0]), Wiring(models[1])
        pairing = pair_nodes(first, second)
    notes = [note for view in views for note in view.notes]
    if pairing.renumbered:
        notes.append("the same names stand for different nodes; paired by structure instead")
    fewer = min(len(view.layers) for view in views)
    if len(pairs) <= fewer / 2 and fewer:
        notes.append(f"{len(pairs)} of {fewer} layers pair: these seem to be different networks")
    layers = layer_differences(*views, pairs)
    if samples is not None:
        layers, more = _with_signals(layers, views, pairs, samples, threads, progress)
        notes += more
    before, after = (
        ModelFigures(title, len(model.graph.node), view.inspection.totals, size)
        for title, model, view, size in zip(titles, models, views, sizes, strict=True)
    )
    return Difference(
        before=before,
        after=after,
        nodes=node_changes(first, second, pairing),
        tensors=tensor_changes(first, second, pairing),
        layers=tuple(layers),
        settings=setting_changes(*models),
        outputs=None if samples is None else samples.outputs,
        notes=tuple(notes),
    )


def _bytes(model: Model) -> int:
    """Bytes on disk; asked for before a model is loaded, as the file is read for it too."""
    try:
        return file_bytes(model)
    except (ModelError, DecodeError):
        load_model(model)  # which says better what is wrong with it
        raise


def _run(
    models: tuple[Model, Model],
    titles: Sequence[str],
    images: Source,
    recipe: str | Path | Recipe | None,
    batch_size: int,
    threads: int | None,
    latency: bool,
    progress: Progress | None,
) -> _Samples:
    """Run both models as they are; nothing of the sessions is left when this returns."""
    plain = [m if isinstance(m, onnx.ModelProto) else Path(m).expanduser() for m in models]
    waiting = any_large(plain)
    try:
        first, second = (Runnable(m, threads=threads, waiting=waiting) for m in plain)
    except InferenceError as error:
        raise InferenceError(f"{error} (without images, the files can be compared)") from error
    check_inputs(second.inputs, first.inputs, titles[1], titles[0])
    one, other = judging(plain, (first, second), 0)
    names = match_outputs(other.outputs, one.outputs, titles[1])
    size = common_batch((first, second), titles) or batch_size
    opened = open_set(images, first.inputs, recipe=recipe)
    sets = (opened.for_inputs(first.inputs), opened.for_inputs(second.inputs))
    show = progress and functools.partial(progress, "outputs")
    agreements, divergence = output_agreements((one, other), sets, names, size, show)
    times: tuple[Latency, Latency] | None = None
    if latency:
        feeds = [next(data.batches(1)).feeds for data in sets]
        before, after = latencies((first, second), feeds)
        times = (before, after)
    found = OutputsDifference(opened.name, len(opened), divergence, agreements, times)
    return _Samples(sets, size, found)


def _with_signals(
    layers: Sequence[LayerDifference],
    views: tuple[View, View],
    pairs: Sequence[LayerPair],
    samples: _Samples,
    threads: int | None,
    progress: Progress | None,
) -> tuple[list[LayerDifference], list[str]]:
    """The layers with the SNR of their outputs; notes where that cannot be measured."""
    show = progress and functools.partial(progress, "layers")
    try:
        found = layer_signals(
            *views, pairs, samples.sets, batch_size=samples.size, threads=threads, progress=show
        )
    except InferenceError as error:
        return list(layers), [f"the outputs of layers were not compared: {error}"]
    result = []
    for layer in layers:
        if layer.before is not None and layer.before.name in found:
            snr, reason = found[layer.before.name]
            layer = dataclasses.replace(layer, output_snr_db=snr, reason=reason)
        result.append(layer)
    return result, []
