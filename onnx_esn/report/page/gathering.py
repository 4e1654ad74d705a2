"""From a compression to its report: both models compared, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OnnxEsnError, OptionError
from onnx_esn.evaluation.difference import Difference, compare
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.model_source import ModelSource, plain_source
from onnx_esn.graph.shapes import guessed_facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.export import runnable
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.inspecting.result import GroupInspection
from onnx_esn.passes.layers.costs import InputShape
from onnx_esn.pipeline import CompressionResult
from onnx_esn.report.summaries import result_document
from onnx_esn.version import __version__

from .model_files import describe_file
from .report import Report
from .shell import command_words

# Samples that the outputs of layers are compared on; more change the figures little.
SAMPLES = 128
_NAMES = ("before", "after")
Progress = Callable[[str, int, int], None]


def compression_report(
    source: ModelSource,
    result: CompressionResult,
    *,
    arguments: Iterable[str] = (),
    model: Path | None = None,
    output: Path | None = None,
    input_shape: InputShape | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look into a compression.

    Args:
        source: the input model, or its path.
        result: what `compress` made of it.
        arguments: of the command line, behind ``onnx-esn``.
        model: file of the input model; None: `source`, where that is a path.
        output: file of the compressed model; it must have been written.
        input_shape, batch_size, threads: as for `compress`.
        progress: called with what is being done, the samples done and their total.

    Raises:
        ModelError: a file is no longer there.
        OnnxEsnError: the models cannot be read.
    """
    plain = plain_source(source)
    if model is None and not isinstance(plain, onnx.ModelProto):
        model = Path(plain)
    loaded = load_model(plain, outside=True)
    held = None if result.held is None else result.held.take(SAMPLES)
    notes = []
    if held is None:
        notes.append("outputs of layers were not compared: there were too few images")
    difference, told = _difference(
        loaded, result.model, held, input_shape, batch_size, threads, progress
    )
    notes += told
    try:
        groups = _groups(loaded, input_shape, held)
    except OnnxEsnError as error:
        groups = ()
        notes.append(f"channel groups are not known: {error}")
    arguments = tuple(arguments)
    return Report(
        command=command_words(arguments) if arguments else (),
        version=__version__,
        model=None if model is None else describe_file(model),
        output=None if output is None else describe_file(output),
        difference=difference,
        groups=groups,
        samples=None if held is None or difference.outputs is None else len(held),
        notes=tuple(notes),
    )


def compression_document(result: CompressionResult, report: Report) -> dict[str, Any]:
    """The document of a compression with its report in it, as ``compress --json`` prints it."""
    outputs = {} if report.output is None else {"model": report.output.name}
    document = result_document("compress", result.stages, outputs)
    document["evaluation"] = None if result.evaluation is None else result.evaluation.to_document()
    document["report"] = report.to_document()
    return document


def _difference(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    held: CalibrationSet | None,
    shape: InputShape | None,
    batch_size: int,
    threads: int | None,
    progress: Progress | None,
) -> tuple[Difference, list[str]]:
    """The models as they are stored, with the outputs of layers where they run."""

    def stored() -> Difference:
        return compare(before, after, names=_NAMES, input_shape=shape)

    if held is None:
        return stored(), []
    running = runnable(after)
    try:
        found = compare(
            before,
            running,
            held,
            names=_NAMES,
            input_shape=shape,
            batch_size=batch_size,
            threads=threads,
            progress=progress,
        )
    except OnnxEsnError as error:
        return stored(), [f"outputs of layers were not compared: {error}"]
    return (found if running is after else _with_outputs(stored(), found)), []


def _with_outputs(stored: Difference, found: Difference) -> Difference:
    """Costs as they are stored, outputs as computed: onnxruntime lacks operators of the former."""
    measured = {layer.name: layer for layer in found.layers}
    layers = []
    for layer in stored.layers:
        other = measured.get(layer.name)
        if other is not None:
            layer = replace(layer, output_snr_db=other.output_snr_db, reason=other.reason)
        layers.append(layer)
    return replace(stored, layers=tuple(layers), outputs=found.outputs)


def _groups(
    source: onnx.ModelProto, shape: InputShape | None, held: CalibrationSet | None
) -> tuple[GroupInspection, ...]:
    """The groups at the sizes given, else the model's own, else those of a sample, else usual."""
    try:
        found = inspect(source, input_shape=shape)
    except OptionError:
        if shape is not None:
            raise
        sizes: Mapping[str, Sequence[int]]
        if held is None:
            plain = standard_form(source)
            sizes = guessed_facts(plain, Constants(plain), batch=1).sizes
        else:
            feeds = next(held.batches(1)).feeds
            sizes = {name: tuple(feed.shape) for name, feed in feeds.items()}
        found = inspect(source, input_shape=sizes)
    return found.groups or ()
