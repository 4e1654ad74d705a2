"""Prune, fine-tune without labels, quantize: does it beat quantizing alone?

    python benchmarks/learning.py MODEL --images SET --eval-images SET [--labels FILE]

The ESN paper's figure 8 without labels: widths 1, .75, .5 and .25, each fine-tuned towards the
float model on the calibration images and then quantized with compensated codes. Printed are quality
and cost of each point, the quality that fine-tuning starts from, and the least cost at each of a
few levels of quality, with and without pruning.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from common import load, machine_class, quality, sets

from onnx_esn import compress
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.numerics.pareto import cost_at
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.layers.costs import total_cost, total_macs
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.learning.float_layers import LearnWeights
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.pruning.prune import Prune

LEVELS = (1.0, 2.0, 5.0, 10.0, 20.0)  # below the float model


@click.command()
@sets
@click.option("--ratios", default="0,.25,.5,.75", show_default=True)
@click.option("--bits", default="1,2,3,4", show_default=True)
@click.option("--epochs", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(ratios: str, bits: str, epochs: int, seed: int, **paths: Any) -> None:
    """Print a row per width and the least costs."""
    given = {k: Path(v) if v else None for k, v in paths.items()}
    model, images, evaluation = load(**given)
    source = standard_form(model)
    what, whole = quality(source, source, evaluation)
    click.echo(f"{what}; the input model has {whole:.2f}; {machine_class()}; seed {seed}")
    widths = [int(b) for b in bits.split(",")]
    heads = "".join(f"{b} bit".rjust(16) for b in widths)
    click.echo(f"{'width':>5} {'MACs':>6} {'refit':>6} {'learned':>7} {'s':>5}{heads}")
    points: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for ratio in (float(r) for r in ratios.split(",")):
        stages, left, figures = (), source, f"{'':>6} {'':>7} {'':>5}"
        if ratio:
            pruned = Prune(ratio=ratio, images=images)(source)
            refit = Reconstruct(images, source, options=WalkOptions())(pruned.model)
            start = time.perf_counter()
            options = LearnOptions(epochs=epochs, seed=seed)
            learned = LearnWeights(images, source, options=options)(refit.model)
            seconds = time.perf_counter() - start
            stages = (("prune", pruned), ("refit", refit), ("learn", learned))
            left = learned.model
            before, after = (quality(source, m, evaluation)[1] for m in (refit.model, left))
            figures = f"{before:6.2f} {after:7.2f} {seconds:5.0f}"
        row = ""
        for b in widths:
            result = compress(source, images, bits=b, pruned=stages, latency=False)
            value, cost = quality(source, result.model, evaluation)[1], total_cost(result.model)
            points[bool(ratio)].append((cost, value))
            row += f"{value:7.2f} {cost / 1e6:6.1f}M "
        share = total_macs(left) / total_macs(source)
        click.echo(f"{1 - ratio:5.2f} {share:6.1%} {figures}  {row}")
    click.echo(f"{'level':>7} {'bits alone':>12} {'pruned too':>12} {'factor':>7}")
    for below in LEVELS:
        alone, too = (_least(points[kind], whole - below) for kind in (False, True))
        factor = f"{too / alone:.2f}" if alone and too else "–"
        shown = [f"{cost / 1e6:.1f}M" if cost else "–" for cost in (alone, too)]
        click.echo(f"{whole - below:7.2f} {shown[0]:>12} {shown[1]:>12} {factor:>7}")


def _least(points: list[tuple[float, float]], level: float) -> float | None:
    """Cost at which the points reach a level, between them; None where they do not enclose it."""
    points = sorted(points)
    return cost_at([c for c, _ in points], [q for _, q in points], level)


if __name__ == "__main__":
    main()
