"""What recalibration costs beside plain forward passes over the same images, and in memory.

    python benchmarks/statistics_cost.py time MODEL --images DIR [--recipe TOML]
    python benchmarks/statistics_cost.py memory

`time` prints processor time (all threads) and seconds of

- a forward pass of the model over the images, as onnxruntime fuses it: with decoded images, with
  decoding before each batch, and with decoding in the background;
- the same without any fusion, which is what measuring in between leaves of it;
- `statistics`: all channel means and variances of one model, in one pass;
- `reestimate` and `match`, as a whole, and how many passes they make.

`memory` runs recalibration on 64, 512 and 4,096 images of 224×224, each in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from common import peak_bytes
from networks import Network
from rich.console import Console
from rich.table import Table

from onnx_esn import Quantize, Recalibrate
from onnx_esn.calibration import (
    CalibrationSet,
    Session,
    collect_outputs,
    input_specs,
    iterate_outputs,
    open_set,
)
from onnx_esn.calibration.streamed import stream_moments
from onnx_esn.passes.correcting.norm_choice import choose_points

COUNTS = (64, 512, 4096)
SIDE = 224


@click.group()
def main() -> None:
    """Time or memory."""


def timed(work: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Least processor time and seconds."""
    found = []
    for _ in range(runs):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(f[0] for f in found), min(f[1] for f in found)


def all_outputs(model: onnx.ModelProto, images: CalibrationSet, **given: Any) -> None:
    """Images decoded in the background while the model runs."""
    for _ in iterate_outputs(Session(model, **given), images, 64):
        pass


def in_turn(model: onnx.ModelProto, images: CalibrationSet) -> None:
    """Decode a batch, then run it."""
    session = Session(model)
    for batch in images.batches(64):
        session.run(batch.feeds)


@main.command(name="time")
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--images", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--recipe", type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=200, show_default=True, help="At most so many images.")
@click.option("--runs", default=3, show_default=True, help="The least of so many is taken.")
def time_(model: Path, images: Path, recipe: Path | None, count: int, runs: int) -> None:
    """Print the ratios to a plain forward pass."""
    from onnx_esn.calibration import samples

    source = onnx.load(model)
    quantized = Quantize(bits=4)(source).model
    specs = input_specs(source)
    chosen = open_set(images, specs, recipe=recipe).take(count)
    rows: list[tuple[str, tuple[float, float]]] = []

    def add(what: str, work: Callable[[], Any]) -> None:
        rows.append((what, timed(work, runs)))

    add("forward pass, images decoded", lambda: collect_outputs(Session(quantized), chosen, 64))
    room, samples.CACHE_BYTES = samples.CACHE_BYTES, 0
    fresh = open_set(images, specs, recipe=recipe).take(count)
    add("… decoded before each batch", lambda: in_turn(quantized, fresh))
    add("… decoded in the background", lambda: all_outputs(quantized, fresh))
    samples.CACHE_BYTES = room
    add("… nothing fused", lambda: all_outputs(quantized, chosen, optimize=False))
    points, pairs, _ = choose_points(quantized, source, "match")
    own = [pair.point for pair in pairs.values()]
    add(f"statistics of {len(own)} tensors", lambda: stream_moments(source, own, chosen))
    if any(point.layer is None for point in points):
        add("recalibrate, reestimate", lambda: Recalibrate(chosen, method="reestimate")(quantized))
    add("recalibrate, match", lambda: Recalibrate(chosen, reference=source)(quantized))
    table = Table(f"{model.name}, {len(chosen)} images", "processor s", "ratio", "seconds", "ratio")
    for what, (cpu, wall) in rows:
        base = rows[0][1]
        cells = (f"{cpu:.2f}", f"{cpu / base[0]:.2f}", f"{wall:.2f}", f"{wall / base[1]:.2f}")
        table.add_row(what, *cells)
    Console(width=100).print(table)


@main.command()
@click.option("--batch-size", default=32, show_default=True)
@click.option(
    "--limit", default=1024, show_default=True, help="MiB of tensors kept between stages."
)
@click.option("--one", type=int, hidden=True)
def memory(batch_size: int, limit: int, one: int | None) -> None:
    """Print peak memory by number of images."""
    if one is not None:
        click.echo(json.dumps(peak_of(one, batch_size, limit << 20)))
        return
    table = Table("images", "peak MB", "processor s", "µs a pixel")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as scratch:
            call = [sys.executable, __file__, "memory", "--one", str(count)]
            call += ["--batch-size", str(batch_size), "--limit", str(limit)]
            child = subprocess.run(call, capture_output=True, check=True, cwd=scratch)
        found = json.loads(child.stdout)
        pixels = count * SIDE * SIDE
        table.add_row(
            f"{count:,}",
            f"{found['peak'] / 1e6:.0f}",
            f"{found['seconds']:.1f}",
            f"{1e6 * found['seconds'] / pixels:.2f}",
        )
    Console(width=100).print(table)


def peak_of(count: int, batch_size: int, limit: int) -> dict[str, float]:
    """Recalibrate a small network, in the current folder, on as many JPEG files."""
    from PIL import Image

    folder = Path("images")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(64):
        pixels = rng.integers(0, 256, (28, 28, 3), np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{i:04}.jpg")
    for i in range(64, count):
        os.link(folder / f"{i % 64:04}.jpg", folder / f"{i:04}.jpg")
    net = Network(norm=True)
    y = net.op("Relu", net.conv("x", 3, 16, 7, 4))
    y = net.op("Relu", net.conv(y, 16, 32, 3, 2))
    y = net.op("Relu", net.conv(y, 32, 64, 3, 2))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    weight = net.store(rng.standard_normal((10, 64)) * 0.1)
    model = net.model("small", net.op("Gemm", y, weight, transB=1), SIDE, 10)
    quantized = Quantize(bits=4)(model).model
    before = time.process_time()
    images = open_set(folder, input_specs(model))
    done = Recalibrate(images, reference=model, batch_size=batch_size, memory_limit=limit)
    done(quantized)
    return {"peak": peak_bytes(), "seconds": time.process_time() - before}


if __name__ == "__main__":
    main()
