"""What few bits do to depthwise filters: the error of a filter's sum, and all the rest.

    python -m benchmarks.depthwise MODEL --images SET --eval-images SET --recipe TOML

BatchNormalization must be folded. The error e of a filter is split into its mean over the taps
(*DC*: what changes the filter's sum) and the rest. Means of outputs are kept throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.common import load, sets
from onnx_esn.calibration import CalibrationSet, Session, collect_outputs
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.compensation import compensated_codes
from onnx_esn.numerics.cross_moments import quadratic
from onnx_esn.numerics.midrise import decode
from onnx_esn.numerics.quantizers import QUANTIZERS
from onnx_esn.passes.allocation.sensitivity import Prober
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.input_moments import InputMoments, input_moments
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.statistics import WalkOptions

Array = np.ndarray
Weights = dict[str, Array]
SPARSE = 0.8  # of the weights below a tenth of the largest
FEW = 16  # images for the amplification


@click.command(context_settings={"show_default": True})
@sets
@click.option("--count", default=64, help="Images of each set, spread evenly.")
@click.option("--bits", default="4,3")
def main(count: int, bits: str, **paths: Any) -> None:
    """Print errors of layers, divergences of outputs, and how errors grow."""
    model, images, evaluation = load(**{k: Path(v) if v else None for k, v in paths.items()})
    images, evaluation = images.take(count), evaluation.take(count)
    layers = [x for x in find_plain_layers(model) if x.kernel]
    seen = observe(model, images, [x.name for x in layers], WalkOptions())
    moments = input_moments(model, seen)
    layers = [x for x in layers if x.name in moments]
    kinds = {
        "depthwise": [x.name for x in layers if x.depthwise],
        "pointwise": [x.name for x in layers if not x.depthwise and max(x.kernel) == 1],
    }
    prober = Prober(model, moments, evaluation, batch_size=16)
    click.echo("bits kind       codes       grid       error    DC       rest   | divergence"
               "  without DC  only DC")  # fmt: skip
    rounded: dict[tuple[int, str], Weights] = {}
    for b in (int(x) for x in bits.split(",")):
        for kind, names in kinds.items():
            for how, codes in (("nearest", _nearest), ("compensated", _compensated)):
                for grid in QUANTIZERS:
                    W = {name: codes(moments[name], b, grid) for name in names}
                    if (kind, how) == ("depthwise", "nearest"):
                        rounded[b, grid] = W
                    parts = np.mean([_errors(moments[n], W[n]) for n in names], axis=0)
                    found = [prober.divergence(x) for x in _split(moments, W)]
                    click.echo(
                        f"{b:4d} {kind:10s} {how:11s} {grid:9s} "
                        + " ".join(f"{v:8.4f}" for v in parts)
                        + " | "
                        + " ".join(f"{v:10.4f}" for v in found)
                    )
    for (b, grid), W in rounded.items():
        _sparse(moments, W, prober, f"{b} bits, {grid}, nearest")
    for b in dict.fromkeys(b for b, _ in rounded):
        _ratios(moments, rounded[b, "mid-rise"], rounded[b, "mid-tread"], f"{b} bits, nearest")
    last = rounded[min(b for b, _ in rounded), "mid-rise"]
    _amplification(model, [x for x in layers if x.depthwise], layers, moments, last, evaluation)


def _nearest(m: InputMoments, bits: int, grid: str) -> Array:
    rows = m.W.reshape(-1, m.W.shape[2])
    step = QUANTIZERS[grid].optimal_step(rows, bits)
    return decode(QUANTIZERS[grid].encode(rows, step, bits), step).reshape(m.W.shape)


def _compensated(m: InputMoments, bits: int, grid: str) -> Array:
    codes, step = compensated_codes(m.W, m.H.astype(np.float64), bits, quantizer=QUANTIZERS[grid])
    return codes * step[..., None]


def _mean_error(e: Array) -> Array:
    return np.broadcast_to(e.mean(axis=2, keepdims=True), e.shape)


def _errors(m: InputMoments, W: Array) -> tuple[float, ...]:
    """Variance of the error in a layer's outputs, of its DC part and of the rest; relative."""
    H, e = m.H.astype(np.float64), W - m.W
    parts = (e, _mean_error(e), e - _mean_error(e))
    return tuple(float(quadratic(part, H).sum()) / m.energy for part in parts)


def _split(moments: dict[str, InputMoments], W: Weights) -> Iterator[Weights]:
    """The weights; without the DC part of their error; with nothing else."""
    yield W
    yield {n: w - _mean_error(w - moments[n].W) for n, w in W.items()}
    yield {n: moments[n].W + _mean_error(w - moments[n].W) for n, w in W.items()}


def _sparse(moments: dict[str, InputMoments], W: Weights, prober: Prober, what: str) -> None:
    """Filters with nearly all weights small, and the others."""
    which, sums = {}, []
    for name, w in W.items():
        a = np.abs(moments[name].W)
        small = (a < 0.1 * a.max(axis=2, keepdims=True)).mean(axis=2)
        which[name] = (small >= SPARSE) & a.any(axis=2)
        e = np.abs((w - moments[name].W).sum(axis=2))
        sums.append((e / np.maximum(a.sum(axis=2), 1e-30))[which[name]])
    only = {n: np.where(which[n][..., None], w, moments[n].W) for n, w in W.items()}
    others = {n: np.where(which[n][..., None], moments[n].W, w) for n, w in W.items()}
    values = np.concatenate(sums)
    total = sum(x.size for x in which.values())
    click.echo(
        f"{what}: {values.size} sparse filters of {total}, error of the sum / sum of |w| "
        f"{np.median(values):.3f} (median); divergence with these alone "
        f"{prober.divergence(only):.4f}, with all others {prober.divergence(others):.4f}"
    )


def _ratios(moments: dict[str, InputMoments], rise: Weights, tread: Weights, what: str) -> None:
    """Output error of mid-rise relative to mid-tread, by kinds of filters."""
    rows = []
    for name, W in rise.items():
        m = moments[name]
        W0, other = m.W, tread[name]
        H = m.H.astype(np.float64)
        variance, a, b = quadratic(W0, H), quadratic(W - W0, H), quadratic(other - W0, H)
        size = np.abs(W0)
        small = (size < 0.1 * size.max(axis=2, keepdims=True)).mean(axis=2)
        centred = W0 - W0.mean(axis=2, keepdims=True)
        spread = np.maximum(np.square(centred).mean(axis=2), 1e-30)
        kurtosis = (centred**4).mean(axis=2) / spread**2 - 3
        sound = (variance > 1e-9) & (a > 0) & (b > 0)
        ratio = np.log(a[sound] / b[sound])
        rows.append(np.stack([ratio, small[sound], kurtosis[sound]]))
    ratio, small, kurtosis = np.concatenate(rows, axis=1)
    for label, values, edges in (
        ("share of small weights", small, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ("excess kurtosis", kurtosis, (-np.inf, 0.0, 2.0, 5.0, np.inf)),
    ):
        for low, high in itertools.pairwise(edges):
            chosen = (values >= low) & (values < high)
            if chosen.any():
                click.echo(
                    f"{what}: {label} {low:g} to {high:g}: {chosen.sum()} filters, error of "
                    f"mid-rise / mid-tread {np.exp(ratio[chosen].mean()):.2f} (geometric mean)"
                )


def _amplification(
    model: onnx.ModelProto,
    depthwise: list[Layer],
    layers: list[Layer],
    moments: dict[str, InputMoments],
    W: Weights,
    images: CalibrationSet,
) -> None:
    """How the relative error grows from a depthwise layer to the output of the next layer."""
    few = images.take(FEW)
    for part, pick in (("DC", _mean_error), ("rest", lambda e: e - _mean_error(e))):
        rows = [_grown(model, x, layers, moments[x.name], W[x.name], pick, few) for x in depthwise]
        found = np.array([row for row in rows if row])
        growth = np.exp(np.log(found[:, 2] / found[:, 1]).mean())
        click.echo(
            f"{part}: relative error (median) {np.median(found[:, 0]):.4f} at the layer, "
            f"{np.median(found[:, 1]):.4f} where the next one reads, "
            f"{np.median(found[:, 2]):.4f} behind it; growth by the next one × {growth:.2f}"
        )


def _grown(
    model: onnx.ModelProto,
    layer: Layer,
    layers: list[Layer],
    m: InputMoments,
    W: Array,
    pick: Callable[[Array], Array],
    images: CalibrationSet,
) -> list[float]:
    later = [x for x in layers if x.index > layer.index]
    if not later or not layer.bias:
        return []
    behind = min(later, key=lambda x: x.index)
    names = [layer.output, model.graph.node[behind.index].input[0], behind.output]
    e = pick(W - m.W)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    shift = -np.einsum("gmd,gd->gm", e, m.mean).reshape(-1)
    for tensor in changed.graph.initializer:
        if tensor.name in (layer.weight, layer.bias):
            old = numpy_helper.to_array(tensor)
            new = (m.W + e).reshape(old.shape) if tensor.name == layer.weight else old + shift
            tensor.CopyFrom(numpy_helper.from_array(new.astype(old.dtype), tensor.name))
    before, after = (
        collect_outputs(Session(x, outputs=names), images, FEW) for x in (model, changed)
    )
    found = []
    for name in names:
        x, y = before[name].astype(np.float64), after[name]
        signal = np.square(x - x.mean(axis=(0, 2, 3), keepdims=True)).sum()
        found.append(float(np.square(y - x).sum() / signal))
    return found


if __name__ == "__main__":
    main()
