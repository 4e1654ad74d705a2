"""What needs no images, beside reading and writing the same file.

    python benchmarks/free_passes.py                # ResNet-50 and ResNet-152, random weights
    python benchmarks/free_passes.py --depth 50 --runs 5

For each verb: the whole process as the shell sees it, and the verb inside a process that has
imported everything. Floors: `onnx.save(onnx.load(file))`, whole and inside; the imports alone; and
`python -c "import numpy"`, which `--help` is measured against. Processor time is that of all
threads, user and system; on a shared machine its ratios hold where those of a clock do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import onnx
from networks import bottlenecks
from rich.console import Console
from rich.table import Table

VERBS = {
    "inspect": ["inspect"],
    "annotate": ["annotate"],
    "prune --ratio 0.5": ["prune", "--ratio", "0.5"],
    "quantize --bits 4": ["quantize", "--bits", "4"],
    "quantize --target-cost 10%": ["quantize", "--target-cost", "10%"],
}
COPY = "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
INSIDE = """
import json, sys, time
import onnx, onnxruntime
import onnx_esn.report.summaries, onnx_esn.report.tables
from onnx_esn.verbs import annotate, prune, quantize, write_model
from onnx_esn.cli import cli
source, target, *arguments = sys.argv[1:]
cpu, wall = time.process_time(), time.perf_counter()
if arguments:
    cli(arguments, standalone_mode=False)
else:
    onnx.save(onnx.load(source), target)
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]))
"""
Times = tuple[float, float]


def environment() -> dict[str, str]:
    """Byte code is kept, as it is for whoever has installed the package."""
    given = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    given.pop("PYTHONDONTWRITEBYTECODE", None)
    return given


def whole(call: Sequence[str], runs: int) -> Times:
    """Least processor time and seconds of a process."""
    found = []
    for _ in range(runs + 1):  # the first one writes byte code
        start = time.perf_counter()
        child = subprocess.Popen(call, env=environment(), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, call
        found.append((usage.ru_utime + usage.ru_stime, time.perf_counter() - start))
    return min(f[0] for f in found), min(f[1] for f in found)


def inside(arguments: Sequence[str], runs: int) -> Times:
    """Least processor time and seconds of what follows the imports."""
    found = []
    for _ in range(runs):
        call = [sys.executable, "-c", INSIDE, *arguments]
        child = subprocess.run(call, env=environment(), capture_output=True, check=True)
        found.append(json.loads(child.stdout.splitlines()[-1]))
    return min(f[0] for f in found), min(f[1] for f in found)


@click.command()
@click.option("--depth", "depths", multiple=True, type=int, default=(50, 152), show_default=True)
@click.option("--folded", is_flag=True, help="BatchNormalization folded, as exporters do.")
@click.option("--runs", default=3, show_default=True, help="The least of so many is taken.")
@click.option("--no-budget", is_flag=True, help="Leave out what takes longest.")
def main(depths: tuple[int, ...], folded: bool, runs: int, no_budget: bool) -> None:
    """Print a table for each depth."""
    python = sys.executable
    numpy = whole([python, "-c", "import numpy"], runs)
    helped = whole([python, "-m", "onnx_esn", "--help"], runs)
    ratios = " and ".join(f"{a / b:.2f}" for a, b in zip(helped, numpy, strict=True))
    print(f"--help beside `import numpy`: {ratios} times (processor, clock)")
    for depth in depths:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch) / "model.onnx", Path(scratch) / "out.onnx"
            onnx.save(bottlenecks(depth, norm=not folded), source)
            files = [str(source), str(target)]
            table = Table(
                f"ResNet-{depth}, {source.stat().st_size / 1e6:.0f} MB",
                *("process: processor s", "ratio", "clock s", "ratio"),
                *("inside: processor s", "ratio"),
            )
            imports = whole([python, "-c", "from onnx_esn.verbs import quantize"], runs)
            base = whole([python, "-c", COPY, *files], runs), inside(files, runs)
            rows = {"load and save": base, "imports of onnx-esn": (imports, (0.0, 0.0))}
            for name, (verb, *options) in VERBS.items():
                if no_budget and "--target-cost" in options:
                    continue
                call = [verb, files[0], *options, "--quiet"]
                if verb != "inspect":
                    call += ["-o", files[1]]
                process = whole([python, "-m", "onnx_esn", *call], runs)
                rows[name] = process, inside([*files, *call], runs)
            for name, (process, inner) in rows.items():
                cells = [
                    f"{process[0]:.2f}", f"{process[0] / base[0][0]:.1f}",
                    f"{process[1]:.2f}", f"{process[1] / base[0][1]:.1f}",
                    f"{inner[0]:.2f}", f"{inner[0] / base[1][0]:.1f}",
                ]  # fmt: skip
                table.add_row(name, *cells)
            Console(width=110).print(table)


if __name__ == "__main__":
    main()
