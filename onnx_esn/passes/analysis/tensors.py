"""What each tensor's weights lose by fewer bits, and by fewer of them, at equal compression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.weights import path_outputs, read_weight
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.pruning_or_quantizing import BITS, FULL_BITS
from onnx_esn.numerics.pruning_or_quantizing.integer_grid import IntegerGrid
from onnx_esn.numerics.pruning_or_quantizing.magnitude import (
    decibels,
    excess_kurtosis,
    kept_count,
    kept_share_with_mask,
    pruning_error,
)
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.numerics.step_size import squared_error
from onnx_esn.passes.base import Skipped

MOST_WEIGHTS = 1 << 21  # of a tensor that are looked at
_MOST_ON_GRID = 1 << 18  # of its filters, for the filter-wise grid


@dataclass(frozen=True)
class WeightSnr:
    """SNR of a tensor's weights in dB at one compression.

    Attributes:
        bits: n.
        quantized: integers of n bits, one step for the tensor.
        filter_wise: mid-rise codes of n bits, a step for each filter.
        pruned: n/16 of the weights kept, the largest.
        pruned_with_mask: fewer kept, so that the mask's entropy is paid for.
    """

    bits: int
    quantized: float
    filter_wise: float
    pruned: float
    pruned_with_mask: float

    @property
    def margin(self) -> float:
        """By how many dB quantization wins; negative where pruning does."""
        return difference(self.quantized, self.pruned)


@dataclass(frozen=True)
class TensorAnalysis:
    """One stored weight.

    Attributes:
        layers: names of the layers that use it.
        tensor: name of the tensor.
        weights: their number.
        looked_at: how many of them the figures are of.
        excess_kurtosis: 0 for a Gaussian.
        snr: one for each of `BITS`.
    """

    layers: tuple[str, ...]
    tensor: str
    weights: int
    looked_at: int
    excess_kurtosis: float
    snr: tuple[WeightSnr, ...]

    @property
    def name(self) -> str:
        """Name of the first layer."""
        return self.layers[0]


def difference(a: float, b: float) -> float:
    """a − b in dB, 0 where both are infinite."""
    return 0.0 if a == b else a - b


def analyse_tensors(
    layers: Sequence[Layer],
    constants: Constants,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[TensorAnalysis], list[Skipped]]:
    """The tensors behind these layers, in graph order, and those that there is nothing to say of.

    Args:
        layers: the layers.
        constants: of their model.
        seed: draws weights and filters of tensors above `MOST_WEIGHTS`.
        progress: called with (layers done, layers).
    """
    users: dict[str, list[Layer]] = {}
    for layer in layers:
        users.setdefault(path_outputs(layer, constants)[0], []).append(layer)
    found, skipped = [], []
    for index, (tensor, uses) in enumerate(users.items()):
        weight = read_weight(uses[0], constants)
        names = tuple(x.name for x in uses)
        reason = ""
        if weight.counted is not None:
            reason = "its weights are quantized already"
        elif not weight.W.any():
            reason = "its weights are all zero" if weight.W.size else "its weight is empty"
        elif not np.isfinite(weight.W).all():
            reason = "its weights are not finite (NaN or infinity)"
        if reason:
            skipped += [Skipped(name, reason) for name in names]
        else:
            found.append(_analysed(names, tensor, weight.W, np.random.default_rng([seed, index])))
        if progress is not None:
            progress(index + 1, len(users))
    return found, skipped


def _analysed(
    names: tuple[str, ...], tensor: str, W: Floats, rng: np.random.Generator
) -> TensorAnalysis:
    w = W.reshape(-1)
    if w.size > MOST_WEIGHTS:
        w = w[np.unique(rng.integers(0, w.size, MOST_WEIGHTS))]
    M, K = W.shape
    count = max(1, _MOST_ON_GRID // max(K, 1))
    rows = W if count >= M else W[np.sort(rng.choice(M, count, replace=False))]
    # Of a filter wider than that, a part says what its grid does.
    rows = rows[:, : max(_MOST_ON_GRID, 1)]
    grid, power = IntegerGrid(w), float(np.square(rows).sum())
    snr = []
    for bits in BITS:
        on_grid = squared_error(rows, MID_RISE.optimal_step(rows, bits), bits).sum()
        paid = kept_count(w.size, kept_share_with_mask(bits) * FULL_BITS)
        snr.append(
            WeightSnr(
                bits,
                decibels(grid.energy, grid.error(grid.optimal_step(bits), bits)),
                decibels(power, float(on_grid)) if power else math.nan,
                decibels(grid.energy, pruning_error(w, kept_count(w.size, bits))),
                decibels(grid.energy, pruning_error(w, paid)),
            )
        )
    return TensorAnalysis(names, tensor, W.size, w.size, excess_kurtosis(w), tuple(snr))
