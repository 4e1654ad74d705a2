"""Read the checkpoints of a training one after the other, and add up what moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.evaluation.trajectory.checkpoints import (
    Checkpoint,
    arrange,
    find_files,
    read_table,
    whole,
)
from onnx_esn.evaluation.trajectory.result import Epoch, LayerPolicy, Trace, moved
from onnx_esn.evaluation.trajectory.weights import LayerWeights, read_checkpoint
from onnx_esn.numerics.quantizers import MID_RISE, QUANTIZERS
from onnx_esn.numerics.trajectory import EpochSums, bits_for

Weights = Mapping[str, LayerWeights]
Progress = Callable[[str, int, int], None]


def trace(
    checkpoints: Sequence[str | Path],
    *,
    iterations: str | Path | None = None,
    accuracy: str | Path | Mapping[int, float] | None = None,
    epoch: int | None = None,
    quantizer: str = MID_RISE.name,
    progress: Progress | None = None,
) -> Trace:
    """Return S, N and ESN_a of each epoch and layer, and the bits that match an epoch.

    An epoch starts with its iteration 0, or else with the last checkpoint of the epoch before; the
    others of it are its samples. One whose start is not there is left out, and noted. Three
    checkpoints are held at a time.

    Args:
        checkpoints: .onnx or .npz files, or folders of such.
        iterations: a CSV (file,epoch,iteration), where names do not say.
        accuracy: a CSV (epoch,accuracy), or the accuracies by epoch.
        epoch: the one for the policy; None: that of the best accuracy, else the last.
        quantizer: what the policy is for, a name in `QUANTIZERS`.
        progress: called with ("checkpoints", how many are read, of how many).

    Raises:
        OptionError: a file has no place in the training, or the epoch asked for is not there.
        ModelError: a file cannot be read, or its layers are not those of the others.
    """
    if quantizer not in QUANTIZERS:
        known = ", ".join(QUANTIZERS)
        raise OptionError(f"quantizer {quantizer!r} is not known; there are: {known}")
    ordered = arrange(find_files(checkpoints), iterations)
    accuracies = _accuracies(accuracy)
    found: list[Epoch] = []
    notes: list[str] = []
    last: tuple[Checkpoint, Weights] | None = None
    done = 0
    for number, group in groupby(ordered, key=lambda c: c.epoch):
        inside = list(group)
        start = None if last is None or last[0].epoch != number - 1 else last[1]
        sums: dict[str, EpochSums] = {}
        for checkpoint in inside:
            weights = read_checkpoint(checkpoint.path)
            done += 1
            if progress is not None:
                progress("checkpoints", done, len(ordered))
            if last is not None:
                _check_same(last, checkpoint, weights)
            if checkpoint.iteration == 0:
                start = weights
            elif start is not None:
                _add(sums, weights, start)
            last = checkpoint, weights
        if sums:
            samples = next(iter(sums.values())).samples
            layers = {name: moved(x) for name, x in sums.items()}
            found.append(Epoch(number, samples, layers, accuracies.get(number)))
        elif number != ordered[0].epoch:
            notes.append(f"epoch {number} has no start: the end of epoch {number - 1} is missing")
    if not found:
        raise OptionError(
            "no epoch has both a start and a checkpoint after it; give at least two checkpoints "
            "of one epoch, or the ends of two epochs one after the other"
        )
    if accuracies and not any(x.accuracy is not None for x in found):
        known = ", ".join(str(x.epoch) for x in found)
        where = accuracy if isinstance(accuracy, str | Path) else "accuracy"
        raise OptionError(f"{where}: has none of the epochs {known}")
    notes += _sparse(found)
    chosen = _chosen(found, epoch)
    assert last is not None
    return Trace(tuple(found), chosen.epoch, _policy(chosen, last[1], quantizer), tuple(notes))


def _add(sums: dict[str, EpochSums], weights: Weights, start: Weights) -> None:
    for name, layer in weights.items():
        sums.setdefault(name, EpochSums(math.prod(layer.shape))).add(layer.W, start[name].W)


def _check_same(last: tuple[Checkpoint, Weights], now: Checkpoint, weights: Weights) -> None:
    """Refuse other layers than those of the checkpoint before."""
    before, expected = last[0].path, last[1]
    odd = sorted(expected.keys() ^ weights.keys())
    if odd:
        where, other = (now.path, before) if odd[0] in weights else (before, now.path)
        raise ModelError(f"{where}: has a layer {odd[0]!r}, and {other} has not")
    for name, layer in weights.items():
        shape = expected[name].shape
        if layer.shape != shape:
            sizes = " and ".join("×".join(map(str, s)) for s in (shape, layer.shape))
            raise ModelError(f"{now.path}: {name} has another shape than in {before}: {sizes}")


def _sparse(epochs: Sequence[Epoch]) -> list[str]:
    alone = sum(x.samples == 1 for x in epochs)
    if not alone:
        return []
    which = "all epochs have" if alone == len(epochs) else f"{alone} epochs have"
    return [
        f"{which} a single checkpoint after their start: N is of their last iteration alone, which "
        "lies farther away than the mean of all"
    ]


def _chosen(epochs: Sequence[Epoch], wanted: int | None) -> Epoch:
    if wanted is not None:
        for epoch in epochs:
            if epoch.epoch == wanted:
                return epoch
        known = ", ".join(str(x.epoch) for x in epochs)
        raise OptionError(f"epoch {wanted} cannot be computed; there are: {known}")
    judged = [x for x in epochs if x.accuracy is not None]
    if judged:
        return max(judged, key=lambda x: x.accuracy or 0.0)
    return epochs[-1]


def _policy(epoch: Epoch, weights: Weights, quantizer: str) -> tuple[LayerPolicy, ...]:
    """Bits of the layers that moved, for the weights of the last checkpoint."""
    found = []
    for name, part in epoch.layers.items():
        layer = weights[name]
        if part.esn_a is None or not part.esn_a:
            continue
        W = layer.W
        if not W.any():
            continue
        bits, worth = bits_for(W, part.esn_a, QUANTIZERS[quantizer])
        found.append(
            LayerPolicy(name, layer.weight, bits, part.esn_a, worth.counted, worth.estimated)
        )
    return tuple(found)


def _accuracies(given: str | Path | Mapping[int, float] | None) -> dict[int, float]:
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    path = Path(given)
    found: dict[int, float] = {}
    for line, row in read_table(path, ("epoch", "accuracy")):
        number = whole(row["epoch"], path, line)
        text = row["accuracy"] or ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise OptionError(f"{path}, line {line}: {text!r} is not a number")
        if not 0 <= value <= 1:
            raise OptionError(
                f"{path}, line {line}: {value:g} is not an accuracy: a fraction, 0 … 1"
            )
        if number in found:
            raise OptionError(f"{path}, line {line}: epoch {number} is there twice")
        found[number] = value
    return found
