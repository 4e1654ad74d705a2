"""What meeting a budget costs: passes over the calibration set, and everything beside them.

    python -m benchmarks.effort MODEL --images SET --bits-per-mac 3

The images that onnxruntime was given, in units of the calibration set, are what `--effort` spends.
A run of a part of the model counts by its share of the time of a whole pass. Seconds are those of
the wall; on a busy machine compare only what one call prints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.common import forward_seconds, load, machine_class, sets
from onnx_esn.calibration import Session
from onnx_esn.passes.allocation.efforts import EFFORTS
from onnx_esn.passes.allocation.trials import TrialOptions, compress_to
from onnx_esn.passes.layers.costs import total_macs


class Clock:
    """Seconds inside onnxruntime: running, and loading models."""

    def __init__(self) -> None:
        self.running = self.loading = 0.0
        self.runs = self.loads = 0

    def watch(self) -> None:
        """Measure every session from now on."""
        run, init = Session.run, Session.__init__

        def timed_run(session: Session, feeds: Mapping[str, Any], *rest: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(session, feeds, *rest)
            finally:
                self.running += time.perf_counter() - start
                self.runs += 1

        def timed_init(session: Session, *rest: Any, **options: Any) -> None:
            start = time.perf_counter()
            init(session, *rest, **options)
            self.loading += time.perf_counter() - start
            self.loads += 1

        Session.run, Session.__init__ = timed_run, timed_init  # type: ignore[method-assign]


@click.command(context_settings={"show_default": True})
@sets
@click.option("--bits-per-mac", default=3.0, help="The budget, per MAC of the model.")
@click.option("--efforts", default="fast,balanced", help=f"Of {', '.join(EFFORTS)}.")
def main(bits_per_mac: float, efforts: str, **paths: Any) -> None:
    """Print a line an effort."""
    model, images, _ = load(**{k: Path(v) if v else None for k, v in paths.items()})
    budget = bits_per_mac * total_macs(model)
    click.echo(f"{Path(paths['model']).name}: {len(images)} images, {machine_class()}")
    click.echo("effort     pass, s  total, s  running  in passes  loading  (models)  elsewhere")
    for effort in efforts.split(","):
        clock = Clock()
        forward = min(forward_seconds(model, images) for _ in range(3))
        clock.watch()
        start = time.perf_counter()
        compress_to(model, model, images, budget, TrialOptions(effort=effort))
        total = time.perf_counter() - start
        rest = total - clock.running - clock.loading
        click.echo(
            f"{effort:9s} {forward:8.2f} {total:9.1f} {clock.running:8.1f} "
            f"{clock.running / forward:10.1f} {clock.loading:8.1f} {clock.loads:9d} {rest:10.1f}"
        )


if __name__ == "__main__":
    main()
