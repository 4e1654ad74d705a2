"""Smaller kernels against fewer channels at equal MACs, all refitted; and zeros at some ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from common import load, quality, sets

from onnx_esn import prune

_WAYS: dict[str, dict[str, Any]] = {
    "smaller kernels": {"granularity": "spatial"},
    "signal-norm": {"criterion": "signal-norm"},
    "reconstruction": {"criterion": "reconstruction"},
}


@click.command()
@sets
@click.option("--targets", default="90%,70%,50%", show_default=True, help="MACs.")
@click.option("--ratios", default="0.3,0.5", show_default=True, help="Positions that are zeroed.")
def main(targets: str, ratios: str, **paths: Any) -> None:
    """Print one row per target, then one per ratio."""
    model, images, evaluation = load(**{k: Path(v) if v else None for k, v in paths.items()})
    what, before = quality(model, model, evaluation)
    click.echo(f"{what}; the input model has {before:.2f}")
    click.echo(f"{'MACs':<6}" + "".join(f"{name:>18}" for name in _WAYS))
    for target in targets.split(","):
        row = []
        for how in _WAYS.values():
            small = prune(model, target_macs=target, images=images, **how).model
            row.append(quality(model, small, evaluation)[1])
        click.echo(f"{target:<6}" + "".join(f"{x:>18.2f}" for x in row))
    for ratio in filter(None, ratios.split(",")):
        zeros = prune(model, ratio=float(ratio), granularity="spatial", images=images).model
        click.echo(f"{ratio} of the positions zero: {quality(model, zeros, evaluation)[1]:.2f}")


if __name__ == "__main__":
    main()
