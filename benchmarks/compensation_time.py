"""Where the time of compensated quantization goes, on a ResNet-50 with random weights.

    python benchmarks/compensation_time.py                       # 256 images of 224²
    python benchmarks/compensation_time.py --images 32 --depth 152

One run of `quantize` in this process, of which each part's processor time is taken; peak memory is
the kernel's, of the whole process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
from common import peak_bytes
from networks import BLOCKS, bottlenecks
from rich.console import Console
from rich.table import Table

from onnx_esn import quantize
from onnx_esn.calibration import Session
from onnx_esn.numerics import compensation
from onnx_esn.passes.layerwise import solvers
from onnx_esn.passes.layerwise.walk import _Walk

# Part, where its function is, and the function's name.
PARTS: Sequence[tuple[str, Any, str]] = (
    ("sequential rounding on several paths", compensation._Rounder, "follow"),
    ("coordinate descent and refit of steps", compensation._Rounder, "descend"),
    ("damping, chosen on halves", solvers, "choose_damping"),
    ("the ridge, chosen on halves", solvers, "choose_ridge"),
    ("refitting", solvers, "refit"),
    ("samples and second moments of the layers' inputs", _Walk, "_visit"),
    ("sequential rounding for a dozen steps", compensation._Rounder, "best_start"),
    ("forward passes in onnxruntime", Session, "run"),
    ("Cholesky factors for the rounding", solvers, "inputs"),
)


class Shares:
    """Processor seconds of each part; what a part calls counts as its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {part: 0.0 for part, _, _ in PARTS}
        self._busy = False

    def watch(self, part: str, owner: Any, name: str) -> None:
        """Take the time of a function from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **given: Any) -> Any:
            if self._busy:
                return function(*args, **given)
            self._busy, start = True, time.process_time()
            try:
                return function(*args, **given)
            finally:
                self.seconds[part] += time.process_time() - start
                self._busy = False

        setattr(owner, name, timed)


@click.command()
@click.option("--depth", type=click.Choice([str(d) for d in BLOCKS]), default="50")
@click.option("--images", "count", default=256, show_default=True)
@click.option("--bits", default=4, show_default=True)
def main(depth: str, count: int, bits: int) -> None:
    """Print each part's share of the processor time."""
    model = bottlenecks(int(depth), norm=True)
    images = np.random.default_rng(0).standard_normal((count, 3, 224, 224), np.float32)
    shares = Shares()
    for watched in PARTS:
        shares.watch(*watched)
    start, wall = time.process_time(), time.perf_counter()
    quantize(model, bits=bits, images=images)
    total, wall = time.process_time() - start, time.perf_counter() - wall
    table = Table(box=None)
    for heading in ("part", "seconds", "share"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    rest = {"the rest": total - sum(shares.seconds.values())}
    for part, seconds in {**shares.seconds, **rest}.items():
        table.add_row(part, f"{seconds:.1f}", f"{seconds / total:.0%}")
    console = Console()
    console.print(table)
    peak = peak_bytes() / 2**30
    console.print(f"{total:.0f} s of processor time, {wall:.0f} s by the clock, {peak:.1f} GiB")


if __name__ == "__main__":
    main()
