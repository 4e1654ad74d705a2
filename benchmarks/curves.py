"""How cost grows: by megabytes, by nodes, by images and by channels, each verb in its own process.

    python benchmarks/curves.py --plot docs/images/curves.png           # all four: 15 minutes
    python benchmarks/curves.py nodes images --most 0.1                 # small, a quick look

What is counted is processor time (user and system, all threads) of the verb without imports: on a
shared machine it says more than a clock. The exponent is that of a power law fitted to the larger
half of each curve; 1 is linear.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import onnx
from networks import chain
from scaling import resnet

SIZE, CHANNELS = 32, 512
FREE = {
    "inspect": ["inspect"],
    "annotate": ["annotate"],
    "prune": ["prune", "--ratio", "0.3"],
    "quantize": ["quantize", "--bits", "4"],
}
ON_IMAGES = {
    "recalibrate": ["recalibrate"],
    "quantize, compensated": ["quantize", "--bits", "4"],
}
CHILD = """
import json, sys, time
from pathlib import Path
import onnx, onnxruntime
import onnx_esn.calibration, onnx_esn.report.tables, onnx_esn.verbs
from onnx_esn.cli import cli
start = time.process_time()
cli(sys.argv[1:], standalone_mode=False)
seconds = time.process_time() - start
# Not ru_maxrss: a child process inherits that of its parent.
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


@dataclass
class Curve:
    """One verb over growing inputs: x, seconds and peak bytes of each."""

    verb: str
    x: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)

    @property
    def exponent(self) -> float:
        """Of the power law through the larger half."""
        half = slice(len(self.x) // 2, None)
        return float(np.polyfit(np.log(self.x[half]), np.log(self.seconds[half]), 1)[0])


@dataclass(frozen=True)
class Family:
    """What grows.

    Attributes:
        title, unit: for the plot.
        sizes: from small to large.
        build: writes the model (and images.npy) for a size into a folder; returns x.
        verbs: what is measured on each.
    """

    title: str
    unit: str
    sizes: Sequence[int]
    build: Callable[[Path, int], float]
    verbs: dict[str, list[str]]


def by_megabytes(folder: Path, size: int) -> float:
    """Convolutions of 512 channels, nine to the square: 9.4 MB each; a narrower one below that."""
    path = folder / "model.onnx"
    width = min(CHANNELS, int((size * 1e6 / 36) ** 0.5))
    count = max(1, round(size * 1e6 / (36 * width**2)))
    onnx.save(chain([width] * (count + 1)), path)
    return path.stat().st_size / 1e6


def by_nodes(folder: Path, size: int) -> float:
    """Narrow residual networks with BatchNormalization: 3.5 nodes to a layer."""
    model = resnet(max(10, round(size / 3.5)), 0, widths=(8, 8, 8, 8))
    onnx.save(model, folder / "model.onnx")
    return len(model.graph.node)


def by_images(folder: Path, size: int) -> float:
    """A network of 20 layers on images of 32×32."""
    onnx.save(resnet(20, 0), folder / "model.onnx")
    images = np.random.default_rng(0).standard_normal((size, 3, SIZE, SIZE), np.float32)
    np.save(folder / "images.npy", images)
    return size


def by_channels(folder: Path, size: int) -> float:
    """Two pointwise convolutions of that many channels, by their weights in millions."""
    onnx.save(chain([size, size, size], kernel=1), folder / "model.onnx")
    return 2 * size * size / 1e6


FAMILIES = {
    "megabytes": Family("model size", "MB", (1, 3, 10, 30, 100, 300, 1000), by_megabytes, FREE),
    "nodes": Family("depth", "nodes", (30, 100, 300, 1000, 3000, 10000, 20000), by_nodes, FREE),
    "images": Family(
        "calibration set",
        "images of 32×32",
        (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
        by_images,
        ON_IMAGES,
    ),
    "channels": Family(
        "width",
        "million weights in layers of up to 4,096 channels",
        (64, 128, 256, 512, 1024, 2048, 4096),
        by_channels,
        FREE,
    ),
}


def measured(arguments: Sequence[str]) -> dict[str, float]:
    """Processor time and peak memory of one call."""
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    quiet.pop("PYTHONDONTWRITEBYTECODE", None)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments, "--quiet"],
        capture_output=True,
        check=True,
        env=quiet,
    )
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def measure(family: Family, most: float, runs: int) -> Iterator[Curve]:
    """The curves of a family, up to a share of its largest size."""
    curves = [Curve(verb) for verb in family.verbs]
    for size in (s for s in family.sizes if s <= most * family.sizes[-1]):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            x = family.build(folder, size)
            model, images = str(folder / "model.onnx"), folder / "images.npy"
            for curve in curves:
                verb, *options = family.verbs[curve.verb]
                call = [verb, model, *options]
                if images.exists():
                    call += ["--images", str(images)]
                if verb != "inspect":
                    call += ["-o", str(folder / "out.onnx")]
                found = [measured(call) for _ in range(runs)]
                curve.x.append(x)
                curve.seconds.append(min(f["seconds"] for f in found))
                curve.peak.append(int(min(f["peak"] for f in found)))
                print(
                    f"{family.title:16}{x:12,.4g} {curve.verb:22}{curve.seconds[-1]:9.2f} s"
                    f"{curve.peak[-1] / 1e6:9.0f} MB",
                    flush=True,
                )
    yield from curves


@click.command()
@click.argument("families", nargs=-1, type=click.Choice(list(FAMILIES)))
@click.option("--most", default=1.0, show_default=True, help="Share of the largest size.")
@click.option("--runs", default=1, show_default=True, help="The least of so many is taken.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw all curves as PNG.")
@click.option("--results", type=click.Path(path_type=Path), help="Keep the figures as JSON.")
def main(
    families: tuple[str, ...], most: float, runs: int, plot: Path | None, results: Path | None
) -> None:
    """Measure FAMILIES, or all of them; what RESULTS has of others is kept."""
    found: dict[str, list[dict[str, object]]] = {}
    if results is not None and results.exists():
        found = json.loads(results.read_text())
    for name in families or FAMILIES:
        curves = list(measure(FAMILIES[name], most, runs))
        found[name] = [vars(curve) for curve in curves]
        for curve in curves:
            print(f"{name:12}{curve.verb:24}exponent {curve.exponent:.2f}", flush=True)
        if results is not None:
            results.write_text(json.dumps(found, indent=1))
    if plot is not None:
        draw({name: [Curve(**c) for c in curves] for name, curves in found.items()}, plot)  # type: ignore[arg-type]


def draw(found: dict[str, list[Curve]], path: Path) -> None:
    """All families side by side, on double logarithmic axes, with a line of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.4), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2).ravel()
    for axes, (name, family) in zip(panels, FAMILIES.items(), strict=True):
        curves = found.get(name, [])
        for curve, marker in zip(curves, "osD^", strict=False):
            label = f"{curve.verb}: exponent {curve.exponent:.2f}"
            axes.loglog(curve.x, curve.seconds, marker + "-", label=label, markersize=4)
        if curves:
            top = max(curves, key=lambda c: c.seconds[-1])
            line = np.array(top.x) * top.seconds[-1] / top.x[-1]
            axes.loglog(top.x, line, "--", color="gray", linewidth=1, label="linear")
            axes.legend(fontsize=8)
        axes.set(title=f"By {family.title}", xlabel=family.unit, ylabel="processor seconds")
        axes.grid(True, which="major", color="0.9")
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
