"""Cost, latency and agreement of models side by side, on the same samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import (
    CalibrationSet,
    Latency,
    Recipe,
    Source,
    open_set,
)
from onnx_esn.errors import OptionError
from onnx_esn.graph.model_source import ModelSource, plain_source

from .comparison import Accuracy, Comparison, Evaluation, OutputAgreement
from .costs import Costs, measure_costs
from .matching import check_inputs, common_batch, match_outputs, unique_names
from .side_by_side import Progress, compare_outputs
from .turns import Runnable, any_large, judging, latencies

Model = onnx.ModelProto | str | os.PathLike[str]


def evaluate(
    models: Sequence[ModelSource],
    images: Source,
    *,
    reference: ModelSource | None = None,
    recipe: str | Path | Recipe | None = None,
    labels: str | Path | npt.NDArray[Any] | None = None,
    batch_size: int = 64,
    latency: bool = True,
    threads: int | None = None,
    names: Sequence[str] | None = None,
    input_shape: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare models on one set of samples; each sample is decoded once for all of them.

    Args:
        models: paths or models in memory.
        images: a folder of images, ready tensors or an open set (see `open_set`).
        reference: what the outputs are compared with and what latency ratios refer to; the first
            of ``models`` by default. One that is not among them is put first.
        recipe, labels: see `open_set`. Labels that the set brings along are used, too.
        batch_size: samples at once; a model with a fixed batch gets that instead.
        latency: time one run on one sample as well, all models in turns.
        threads: threads for one operator; None leaves the choice to onnxruntime.
        names: for the rows, one for each of ``models``.
        input_shape: what MACs are counted for, by input or for the only one; by default the shape
            of a sample where the models leave axes open.
        progress: called with the samples done and their total.

    Raises:
        OptionError: no model, names that do not fit, or models that do not take the same inputs.
        ImageSetError, RecipeError, LabelsError: the set does not fit; labels without class scores.
        ModelError, InferenceError: a model cannot be loaded or run.
    """
    plain = {id(m): plain_source(m) for m in (*models, reference) if m is not None}
    rows, titles, first = _arrange(
        [plain[id(m)] for m in models],
        None if reference is None else plain[id(reference)],
        names,
    )
    loadable = [_loadable(model) for model in rows]
    waiting = any_large(loadable)
    sessions = [Runnable(model, threads=threads, waiting=waiting) for model in loadable]
    for title, session in zip(titles, sessions, strict=True):
        check_inputs(session.inputs, sessions[first].inputs, title, titles[first])
    size = common_batch(sessions, titles) or batch_size
    opened = open_set(images, sessions[first].inputs, recipe=recipe, labels=labels)
    sets = [opened.for_inputs(session.inputs) for session in sessions]
    judges = judging(loadable, sessions, first)
    maps = [
        match_outputs(judge.outputs, judges[first].outputs, title)
        for title, judge in zip(titles, judges, strict=True)
    ]
    agreements, accuracies = compare_outputs(
        judges, sets, maps, first, size, labels is not None, progress
    )
    costs = [
        measure_costs(model, _open_shapes(sets[i], input_shape)) for i, model in enumerate(loadable)
    ]
    times, timed = _time(sessions, sets, first) if latency else ([None] * len(rows), None)
    evaluations = tuple(
        _evaluation(titles[i], costs[i], times[i], agreements[i], accuracies[i])
        for i in range(len(rows))
    )
    return Comparison(evaluations, first, opened.name, len(opened), timed)


def _arrange(
    models: Sequence[Model], reference: Model | None, names: Sequence[str] | None
) -> tuple[list[Model], list[str], int]:
    """All rows, their names, and which one is the reference."""
    rows = list(models)
    if not rows:
        raise OptionError("there is no model to evaluate; name at least one")
    if names is not None and len(names) != len(rows):
        raise OptionError(f"{len(names)} names for {len(rows)} models; give one for each")
    given: list[str | None] = [None] * len(rows) if names is None else list(names)
    first = 0
    if reference is not None:
        same = [index for index, model in enumerate(rows) if _same(model, reference)]
        first = same[0] if same else 0
        if not same:
            rows.insert(0, reference)
            given.insert(0, None)
    return rows, unique_names(rows, given), first


def _same(a: Model, b: Model) -> bool:
    if isinstance(a, onnx.ModelProto) or isinstance(b, onnx.ModelProto):
        return a is b
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()


def _loadable(model: Model) -> onnx.ModelProto | Path:
    return model if isinstance(model, onnx.ModelProto) else Path(model).expanduser()


def _open_shapes(
    data: CalibrationSet, given: Mapping[str, Sequence[int]] | Sequence[int] | None
) -> Mapping[str, Sequence[int]] | None:
    """The shapes given, or of one sample where the model leaves more open than the batch."""
    if given is not None and len(data.inputs) == 1:
        shape = next(iter(given.values())) if isinstance(given, Mapping) else given
        return {data.inputs[0].name: shape}
    if given is not None:
        if not isinstance(given, Mapping):
            raise OptionError("the models have several inputs; give input_shape by name")
        return given
    if all(s.shape and all(isinstance(n, int) for n in s.shape[1:]) for s in data.inputs):
        return None
    batch = next(iter(data.batches(1)))
    return {name: tuple(feed.shape) for name, feed in batch.feeds.items()}


def _time(
    sessions: Sequence[Runnable], sets: Sequence[CalibrationSet], first: int
) -> tuple[list[Latency | None], int]:
    """Latency of each model on one sample (or its fixed batch), relative to the reference."""
    order = [first, *(index for index in range(len(sessions)) if index != first)]
    feeds = [next(iter(sets[index].batches(1))).feeds for index in order]
    timed = latencies([sessions[index] for index in order], feeds)
    by_index: dict[int, Latency | None] = dict(zip(order, timed, strict=True))
    batch = len(next(iter(feeds[0].values())))
    return [by_index[index] for index in range(len(sessions))], batch


def _evaluation(
    name: str,
    costs: Costs,
    latency: Latency | None,
    outputs: Sequence[OutputAgreement],
    accuracy: Accuracy | None,
) -> Evaluation:
    known = [output for output in outputs if output.agreement is not None]
    classes = [out for out in known if out.agreement and out.agreement.top1 is not None]
    return Evaluation(
        name=name,
        macs=costs.macs,
        parameters=costs.parameters,
        esn_prime=costs.esn_prime,
        mean_bits=costs.esn_prime / costs.macs if costs.macs else None,
        file_bytes=costs.file_bytes,
        latency=latency,
        outputs=tuple(outputs),
        headline=next(iter(classes or known), None),
        accuracy=accuracy,
    )
