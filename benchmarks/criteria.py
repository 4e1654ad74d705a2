"""Which criterion prunes best? Prune to a share of the MACs, match, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from common import load, quality, sets

from onnx_esn import Prune, Recalibrate
from onnx_esn.passes.pruning.scores import CRITERIA


@click.command()
@sets
@click.option("--shares", default="90%,80%,60%", show_default=True, help="Of the MACs, to keep.")
@click.option("--scope", default="layer", type=click.Choice(["layer", "global"]))
def main(shares: str, scope: str, **paths: Any) -> None:
    """Print one row per criterion."""
    model, images, evaluation = load(**{k: Path(v) if v else None for k, v in paths.items()})
    what, float_value = quality(model, model, evaluation)
    click.echo(f"{what}; the input model has {float_value:.2f}; scope {scope}")
    targets = shares.split(",")
    click.echo("criterion".ljust(18) + "".join(t.rjust(9) for t in targets))
    for criterion in CRITERIA:
        row = []
        for target in targets:
            pruned = Prune(target_macs=target, criterion=criterion, scope=scope, images=images)(
                model
            )
            better = Recalibrate(images, reference=model)(pruned.model)
            row.append(quality(model, better.model, evaluation)[1])
        click.echo(criterion.ljust(18) + "".join(f"{v:9.2f}" for v in row))


if __name__ == "__main__":
    main()
