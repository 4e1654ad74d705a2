"""Uniform bits against the Lagrangian allocation, at the same ESN'_d, all recalibrated.

`--weightings` also tries the two weightings of a filter's error whose geometric mean is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import onnx
from common import load, quality, sets

from onnx_esn import inspect, quantize

Weights = Callable[[np.ndarray, np.ndarray], np.ndarray]


def relative(energy: np.ndarray, live: np.ndarray) -> np.ndarray:
    """1/(n·‖W_f‖²)."""
    energy = np.where(live, energy, 0.0)
    counted = energy > 0
    return np.divide(1.0, energy * counted.sum(), out=np.zeros(energy.size), where=counted)


def absolute(energy: np.ndarray, live: np.ndarray) -> np.ndarray:
    """1/Σ‖W_f‖²."""
    energy = np.where(live, energy, 0.0)
    return np.where(energy > 0, 1.0 / max(energy.sum(), 1e-300), 0.0)


@click.command()
@sets
@click.option("--bits", default="2,3,4,5,6", show_default=True)
@click.option("--weightings", is_flag=True)
def main(bits: str, weightings: bool, **paths: Any) -> None:
    """Print one row per bit width."""
    model, images, evaluation = load(**{k: Path(v) if v else None for k, v in paths.items()})
    what, float_value = quality(model, model, evaluation)
    others: dict[str, Weights] = {}
    if weightings:
        others = {"relative": relative, "absolute": absolute}
    click.echo(f"{what}; the input model has {float_value:.2f}")
    click.echo("bits   ESN'_d    uniform  allocated" + "".join(f"{n:>11}" for n in others))

    def allocated(cost: float) -> float:
        small: onnx.ModelProto = quantize(model, target_cost=cost, images=images).model
        return quality(model, small, evaluation)[1]

    for b in (int(x) for x in bits.split(",")):
        uniform = quantize(model, bits=b, images=images).model
        cost = inspect(uniform, groups=False).totals.esn_prime
        row = [quality(model, uniform, evaluation)[1], allocated(cost)]
        for weights in others.values():
            with mock.patch("onnx_esn.passes.quantizing.bit_losses.energy_weights", weights):
                row.append(allocated(cost))
        click.echo(f"{b:4d} {cost:8.4g}" + "".join(f"{v:11.2f}" for v in row))


if __name__ == "__main__":
    main()
