"""Uniform bits against the Lagrangian allocation, at the same ESN'_d, both recalibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from common import load, quality, sets

from onnx_esn import inspect, quantize


@click.command()
@sets
@click.option("--bits", default="2,3,4,5,6", show_default=True)
def main(bits: str, **paths: Any) -> None:
    """Print one row per bit width."""
    model, images, evaluation = load(**{k: Path(v) if v else None for k, v in paths.items()})
    what, float_value = quality(model, model, evaluation)
    click.echo(f"{what}; the input model has {float_value:.2f}")
    click.echo("bits   ESN'_d     uniform  allocated")
    for b in (int(x) for x in bits.split(",")):
        uniform = quantize(model, bits=b, images=images).model
        cost = inspect(uniform, groups=False).totals.esn_prime
        shared = quantize(model, target_cost=cost, images=images).model
        values = [quality(model, m, evaluation)[1] for m in (uniform, shared)]
        click.echo(f"{b:4d} {cost:9.4g} {values[0]:10.2f} {values[1]:10.2f}")


if __name__ == "__main__":
    main()
