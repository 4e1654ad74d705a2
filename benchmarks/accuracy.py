"""Accuracy against cost, over several draws of calibration images, beside other tools.

    python -m benchmarks.accuracy MODEL --images SET --eval-images SET -o results.json

Each cell (a draw, a method, a setting) runs in a process of its own and is written at once: a
second call skips what is done. Cells that failed are tried again.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks import accuracy_peers
from benchmarks.common import (
    forget_peak,
    forward_seconds,
    load,
    machine_class,
    peak_bytes,
    random_part,
    sets,
)
from onnx_esn import compress, inspect, prune, quantize, recalibrate
from onnx_esn.calibration import CalibrationSet
from onnx_esn.evaluation import evaluate

SCHEMA = "onnx-esn/benchmark-accuracy/1"
# Of the images, in each of several draws: more would make the draws the same.
MOST = 0.8
PACKAGES = ("onnx-esn", "onnx", "onnxruntime", "numpy", "scipy")
Cell = dict[str, Any]


def run_cell(config: dict[str, Any], part: int, method: str, setting: str) -> Cell:
    """Compress, then compare with the float model on the evaluation images."""
    paths = {k: None if v is None else Path(v) for k, v in config["paths"].items()}
    model, images, evaluation = load(**paths)
    images = random_part(images, config["calibration"], config["seed"], part)
    forward = forward_seconds(model, images)
    before = peak_bytes()
    forget_peak()
    start = time.perf_counter()
    small = METHODS[method](model, images, setting, config["effort"])
    seconds, peak = time.perf_counter() - start, peak_bytes()
    found = evaluate([model, small], evaluation, latency=False).models[1]
    accuracy, agreement = found.accuracy, found.agreement
    return {
        "macs": found.macs,
        "cost": found.esn_prime,
        "bits_per_mac": found.esn_prime / config["macs"],
        "accuracy": None if accuracy is None else accuracy.value,
        "difference": None if accuracy is None else accuracy.difference,
        "difference_error": None if accuracy is None else accuracy.difference_error,
        "kl": None if agreement is None else agreement.kl,
        "top1": None if agreement is None else agreement.top1,
        "snr_db": None if agreement is None else agreement.snr_db,
        "seconds": seconds,
        "forward_seconds": forward,
        "peak_bytes": peak,
        "peak_bytes_before": before,
    }


def _uniform(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    return quantize(model, bits=int(setting), images=images).model


def _uniform_learned(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    return quantize(model, bits=int(setting), images=images, method="qil").model


def _nearest(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    return quantize(model, bits=int(setting), images=images, method="nearest").model


def _budget(**options: Any) -> Callable[..., onnx.ModelProto]:
    def run(
        model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
    ) -> onnx.ModelProto:
        target = float(setting) * inspect(model, groups=False).totals.macs
        # The closing figures are taken elsewhere; one image keeps all others for calibration.
        return compress(
            model,
            images,
            target_cost=target,
            effort=effort,
            eval_images=images.take(1),
            latency=False,
            **options,
        ).model

    return run


def _prune(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    return prune(model, target_macs=setting, criterion="reconstruction", images=images).model


def _prune_norm(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    pruned = prune(model, target_macs=setting, images=images, refit=False).model
    return recalibrate(pruned, images, reference=model).model


METHODS: dict[str, Callable[..., onnx.ModelProto]] = {
    "uniform": _uniform,
    "nearest": _nearest,
    "bits": _budget(channels=False),
    "joint": _budget(),
    "nearest-bits": _budget(method="nearest"),
    "uniform-learned": _uniform_learned,
    "joint-learned": _budget(learn=True),
    "prune": _prune,
    "prune-norm": _prune_norm,
    **accuracy_peers.METHODS,
}
OWN = {
    "uniform": "the same bits for all filters, compensated",
    "nearest": "the same bits for all filters, rounded to nearest, recalibrated",
    "bits": "a budget spent on bits, compensated",
    "joint": "a budget spent on widths and bits, compensated",
    "nearest-bits": "a budget spent on bits, rounded to nearest, recalibrated",
    "prune": "pruned by reconstruction, refitted, not quantized",
    "prune-norm": "pruned by signal norm, recalibrated, not quantized",
}
# Takes minutes a cell: to be asked for.
LEARNED = {
    "uniform-learned": "the same bits for all filters, compensated, then learned",
    "joint-learned": "a budget spent on widths and bits, compensated, then learned",
}


@click.command(context_settings={"show_default": True})
@sets
@click.option("--budgets", default="4,3,2,1", help="Bits per MAC of the input model.")
@click.option("--uniform", default="4,3,2,1", help="Bits of every filter.")
@click.option("--prune-macs", default="70%,50%", help="MACs left by pruning alone.")
@click.option("--methods", default=",".join(OWN), help=f"Which of ours; also {', '.join(LEARNED)}.")
@click.option("--subsets", default=3, help="Draws of calibration images.")
@click.option("--calibration", default=512, help="Images in each draw.")
@click.option("--seed", default=0)
@click.option("--effort", default="balanced")
@click.option("--peers", default="onnxruntime,aimet,onnxsim", help="Other tools, or ''.")
@click.option("--machine", default=machine_class(), help="For the record.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(output: Path, **options: Any) -> None:
    """Measure, write JSON, print a table in Markdown."""
    config, settings = _configure(options)
    document = _resume(output, config)
    cells: dict[str, Cell] = document["cells"]
    for peer in _listed(options["peers"]):
        missing = accuracy_peers.why_not(peer)
        if missing:
            click.echo(f"{peer}: skipped: {missing}", err=True)
            document["skipped"][peer] = missing
            continue
        document["skipped"].pop(peer, None)
        settings |= accuracy_peers.SETTINGS[peer]
    todo = list(_todo(settings, options["subsets"], cells))
    for n, (part, method, setting) in enumerate(todo):
        click.echo(f"{n + 1}/{len(todo)}: draw {part}, {method} {setting}", err=True)
        cell = _in_child(config, part, method, setting)
        if "error" in cell:
            click.echo(f"  failed: {cell['error']}", err=True)
        cells[_key(part, method, setting)] = cell
        _write(output, document)
    _write(output, document)
    click.echo(table(document))


def _configure(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What all cells share, and the settings of each method."""
    names = ("model", "images", "eval_images", "recipe", "labels")
    paths = {name: options[name] for name in names}
    model, images, evaluation = load(**paths)
    count = min(options["calibration"], len(images))
    if options["subsets"] > 1:
        count = min(count, round(MOST * len(images)))
    config = {
        "paths": {k: None if v is None else str(v) for k, v in paths.items()},
        "model": Path(options["model"]).name,
        "sha256": hashlib.sha256(Path(options["model"]).read_bytes()).hexdigest(),
        "calibration": count,
        "evaluation": len(evaluation),
        "seed": options["seed"],
        "effort": options["effort"],
        "macs": inspect(model, groups=False).totals.macs,
        "machine": options["machine"],
        "packages": {name: version(name) for name in PACKAGES},
    }
    given = {
        "uniform": options["uniform"],
        "nearest": options["uniform"],
        "bits": options["budgets"],
        "joint": options["budgets"],
        "nearest-bits": options["budgets"],
        "uniform-learned": options["uniform"],
        "joint-learned": options["budgets"],
        "prune": options["prune_macs"],
        "prune-norm": options["prune_macs"],
    }
    chosen = _listed(options["methods"])
    unknown = set(chosen) - set(given)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are: {', '.join(given)}")
    return config, {name: _listed(given[name]) for name in chosen}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _key(part: int, method: str, setting: str) -> str:
    return f"{part}/{method}/{setting}"


def _todo(
    settings: dict[str, list[str]], subsets: int, cells: dict[str, Cell]
) -> Iterator[tuple[int, str, str]]:
    for part in range(subsets):
        for method, values in settings.items():
            for setting in values:
                if "error" in cells.get(_key(part, method, setting), {"error": ""}):
                    yield part, method, setting


def _resume(output: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The document so far, if it is about the same."""
    if not output.exists():
        return {"schema": SCHEMA, "config": config, "skipped": {}, "cells": {}}
    document: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    same = ("sha256", "calibration", "evaluation", "seed", "effort")
    for key in same:
        if document["config"][key] != config[key]:
            was = document["config"][key]
            raise click.UsageError(f"{output} was made with {key} {was}, not {config[key]}")
    return document


def _write(output: Path, document: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(output.name + ".part")
    shown = {**document["config"], "paths": None}  # they say nothing elsewhere
    text = json.dumps({**document, "config": shown}, indent=1, ensure_ascii=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(output)


def _in_child(config: dict[str, Any], part: int, method: str, setting: str) -> Cell:
    """Run a cell in a process of its own: its memory is its own, and a crash costs one cell."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(run_cell, config, part, method, setting).result()
        except Exception as error:  # whatever a tool may raise
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def table(document: dict[str, Any]) -> str:
    """The cells as Markdown: mean ± standard deviation over the draws."""
    config = document["config"]
    groups: dict[tuple[str, str], list[Cell]] = {}
    for key, cell in document["cells"].items():
        _, method, setting = key.split("/", 2)
        groups.setdefault((method, setting), []).append(cell)
    labels = {**OWN, **LEARNED, **accuracy_peers.LABELS}
    packages = ", ".join(f"{k} {v}" for k, v in config["packages"].items())
    lines = [
        f"{config['model']}: {config['calibration']} calibration images a draw, seed "
        f"{config['seed']}, effort {config['effort']}, {config['evaluation']} evaluation images; "
        f"{config['machine']}; {packages}",
        "",
        "| method | setting | draws | bits per MAC | MACs | accuracy, pp | error | KL | top-1 % | "
        "s | × forward | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (method, setting), cells in sorted(groups.items(), key=lambda x: _rank(*x[0])):
        sound = [cell for cell in cells if "error" not in cell]
        if not sound:
            lines.append(f"| {method} | {setting} | 0 | {cells[0]['error']} ||||||||")
            continue
        error = [c["difference_error"] for c in sound if c["difference_error"] is not None]
        row = (
            method,
            setting,
            str(len(sound)),
            _figure([c["bits_per_mac"] for c in sound], "{:.3f}"),
            _figure([c["macs"] / config["macs"] for c in sound], "{:.1%}"),
            _figure([c["difference"] for c in sound], "{:+.2f}", 100),
            f"{100 * float(np.mean(error)):.2f}" if error else "–",
            _figure([c["kl"] for c in sound], "{:.4f}"),
            _figure([c["top1"] for c in sound], "{:.2f}", 100),
            _figure([c["seconds"] for c in sound], "{:.1f}"),
            _figure([c["seconds"] / c["forward_seconds"] for c in sound], "{:.0f}"),
            f"{max(c['peak_bytes'] for c in sound) / 1e6:.0f}",
        )
        lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    lines += [f"- {m}: {labels[m]}" for m in dict.fromkeys(m for m, _ in sorted(groups))]
    lines += [f"- {peer}: skipped: {why}" for peer, why in document["skipped"].items()]
    lines.append(
        "- accuracy: minus the float model's on the same images, ± over the draws; error: its "
        "paired standard error over the evaluation images; bits per MAC: of the float model's MACs"
    )
    return "\n".join(lines)


def _rank(method: str, setting: str) -> tuple[int, float, str]:
    number = setting.rstrip("%").lstrip("W").split(" ")[0]
    value = float(number) if number.replace(".", "").isdigit() else math.inf
    return list(METHODS).index(method), -value, setting


def _figure(values: list[float | None], form: str, scale: float = 1.0) -> str:
    known = [scale * v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "–"
    text = form.format(float(np.mean(known)))
    if len(known) < 2:
        return text
    return f"{text} ± {form.replace('+', '').format(float(np.std(known, ddof=1)))}"


if __name__ == "__main__":
    main()
