"""From a sweep to its report: the point that is chosen, made again and looked into."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.passes.inspecting.esn_metrics import measure_esn
from onnx_esn.pipeline import compress
from onnx_esn.report.summaries import result_document
from onnx_esn.verbs import named_shapes

from .choosing import choose_point, point_command, point_options
from .gathering import Progress, compression_report
from .report import Choice, Report
from .shell import command_words

log = logging.getLogger(__name__)

_SETS = ("recipe", "eval_images", "labels")
_USUAL_BATCH = 64


def sweep_report(
    source: onnx.ModelProto,
    model: Path,
    images: Path,
    swept: Mapping[str, Any],
    *,
    arguments: Iterable[str] = (),
    effort: str = "balanced",
    recipe: Path | None = None,
    eval_images: Path | None = None,
    labels: Path | None = None,
    batch_size: int = _USUAL_BATCH,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compress to the chosen point once more, and look into that.

    The models of a sweep are not kept, unless it is asked to; a point is made again in the time
    that it took.

    Args:
        source: the input model.
        model: its file.
        images: the calibration set.
        swept: the document of the sweep.
        arguments: of the command line, behind ``onnx-esn``.
        effort, recipe, eval_images, labels, batch_size, options: as the sweep had them.
        progress: called with what is being done, how much, of how much.

    Raises:
        OptionError: no point of the sweep is finished.
        OnnxEsnError: see `compress`.
    """
    chosen = choose_point(swept)
    if chosen is None:
        raise OptionError("there is nothing to report: no point of the sweep was finished")
    index, rule = chosen
    more = dict(options or {})
    shapes = named_shapes(source, more.get("input_shape"))
    macs = measure_esn(source, input_shape=shapes).macs
    given: dict[str, Any] = {"recipe": recipe, "eval_images": eval_images, "labels": labels}
    shared = ["--images", str(images)]
    for name in _SETS:
        if given[name] is not None:
            shared += [f"--{name.replace('_', '-')}", str(given[name])]
    if batch_size != _USUAL_BATCH:
        shared += ["--batch-size", str(batch_size)]
    shared += _words(more)
    of_points = [point_options(point, macs, effort) for point in swept["points"]]
    result = compress(
        source,
        images,
        **of_points[index],
        **given,
        **more,
        batch_size=batch_size,
        progress=progress,
    )
    report = compression_report(
        source,
        result,
        model=model,
        input_shape=more.get("input_shape"),
        batch_size=batch_size,
        threads=more.get("threads"),
        progress=progress,
    )
    document = result_document("compress", result.stages, {})
    document["evaluation"] = None if result.evaluation is None else result.evaluation.to_document()
    notes = list(report.notes)
    if not _agrees(swept["points"][index], document["evaluation"]):
        notes.append("the chosen point was made again, and its cost is not the one of the sweep")
    commands = tuple(
        point_command(str(model), f"{_label(point)}.onnx", own, shared)
        for point, own in zip(swept["points"], of_points, strict=True)
    )
    arguments = tuple(arguments)
    return replace(
        report,
        command=command_words(arguments) if arguments else (),
        notes=tuple(notes),
        choice=Choice(index, rule, document),
        point_commands=commands,
    )


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options of `compress` as words of a command line."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "input_shape":
            named = value if isinstance(value, Mapping) else {"": value}
            for tensor, sizes in named.items():
                text = ",".join(map(str, sizes))
                words += [flag, f"{tensor}:{text}" if tensor else text]
        elif isinstance(value, bool):
            words += [flag] * value
        elif isinstance(value, str | int):
            words += [flag, str(value)]
        else:
            for pattern in value:
                words += [flag, pattern]
    return words


def _agrees(point: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> bool:
    return evaluation is None or point["esn_prime"] == evaluation["models"][-1]["esn_prime"]


def _label(point: Mapping[str, Any]) -> str:
    if point["method"] is not None:
        return f"{point['method']}_{point['target']:g}"
    return f"r{point['ratio']:g}_b{point['bits']}"
