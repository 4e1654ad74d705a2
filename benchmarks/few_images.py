"""How much further views of the calibration images gain, by how many images there are.

    python -m benchmarks.few_images MODEL --images SET --eval-images SET --counts 24,50,100 --bits 2

The model is compressed to so many bits per MAC, filters choosing theirs (`--effort fast`, no
channels removed), on random parts of the calibration set, with each number of views. Printed is how
far its outputs are from the float model's on the other set: mean and spread over the draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import load, machine_class, random_part, sets
from onnx_esn import compress, inspect
from onnx_esn.cli.options.values import Shape


@click.command()
@sets
@click.option("--counts", default="24,50,100", show_default=True, help="Images.")
@click.option("--views", default="1,4", show_default=True)
@click.option("--bits", default=2.0, show_default=True, help="Per MAC.")
@click.option("--draws", default=3, show_default=True)
@click.option("--input-shape", type=Shape(), help="1,3,224,224, where the model leaves it open.")
@click.option("--seed", default=0, show_default=True)
def main(
    counts: str,
    views: str,
    bits: float,
    draws: int,
    input_shape: tuple[str, tuple[int, ...]] | None,
    seed: int,
    **paths: Any,
) -> None:
    """Print a row for each number of images, a column for each number of views."""
    model, images, others = load(**{k: Path(v) if v else None for k, v in paths.items()})
    shape = None if input_shape is None else input_shape[1]
    before = inspect(model, input_shape=shape).totals.macs
    numbers = [int(v) for v in views.split(",")]
    click.echo(f"{bits:g} bits per MAC; {machine_class()}; seed {seed}; {draws} draws")
    click.echo(f"{'images':>6} " + "".join(f"{v} views".rjust(22) for v in numbers))
    for count in (int(c) for c in counts.split(",")):
        row = ""
        for number in numbers:
            found = []
            for draw in range(draws):
                part = random_part(images, count, seed, draw)
                done = compress(
                    model,
                    part,
                    target_cost=float(bits * before),
                    eval_images=others,
                    effort="fast",
                    channels=False,
                    views=number,
                    input_shape=shape,
                    latency=False,
                )
                assert done.evaluation is not None
                agreement = done.evaluation.models[1].agreement
                assert agreement is not None
                scores = agreement.kl is not None
                found.append(agreement.kl if scores else agreement.snr_db)
            unit = "KL" if scores else "dB"
            row += f"{np.mean(found):.4g} ± {np.std(found, ddof=1):.2g} {unit}".rjust(22)
        click.echo(f"{count:>6} {row}")


if __name__ == "__main__":
    main()
