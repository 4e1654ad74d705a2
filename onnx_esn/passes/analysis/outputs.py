"""What a layer's outputs lose by fewer bits and by fewer weights, both chosen for the outputs.

Whole filters, a few of each layer: compensated rounding (`numerics.compensation`) against the
better of two maskings, magnitude and greedy elimination, weights refitted by least squares; as many
weights are kept as n/16 of those of all these filters. Bounds: `spectral`.

Blocks of 16 inputs of such a filter, as if all its other weights stayed as they are: rounding at
the filter's step against the best mask. Bounds: `code_bound` and `mask_search`.

Errors are variances of the outputs, behind the gain of a BatchNormalization: what changes in the
mean goes into the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.compensation import compensated_codes, inputs
from onnx_esn.numerics.midrise import Bools, Floats, top_code
from onnx_esn.numerics.pruning_or_quantizing import BITS
from onnx_esn.numerics.pruning_or_quantizing.magnitude import decibels, kept_count
from onnx_esn.numerics.pruning_or_quantizing.masks import (
    greedy_masks,
    greedy_order,
    magnitude_masks,
    mask_error,
)
from onnx_esn.numerics.pruning_or_quantizing.spectral import (
    least_eigenvalue,
    pruning_bound,
    rounding_bound,
)
from onnx_esn.passes.analysis.blocks import BlockSnr, Filter, analyse_blocks
from onnx_esn.passes.analysis.tensors import difference
from onnx_esn.passes.layerwise.input_moments import InputMoments

MOST_FILTERS, FEWEST_FILTERS = 32, 4  # of a layer that are looked at
_WORK = 1 << 30  # inputs³ of these filters together, about
MOST_GREEDY = 1280  # inputs of a filter that is pruned greedily too
MOST_SPECTRAL = 2304  # inputs of a layer with a spectral bound
_RIDGE = 1e-6


@dataclass(frozen=True)
class OutputSnr:
    """SNR of the outputs of a layer's filters in dB at one compression.

    Attributes:
        bits: n.
        quantized: after compensated rounding.
        quantized_limit: no codes at these steps do better (spectral); None where not computed.
        pruned: after the better masking and least squares.
        pruned_limit: no mask does better (spectral); None where not computed.
        masking: ``greedy`` or ``magnitude``, the better one.
    """

    bits: int
    quantized: float
    quantized_limit: float | None
    pruned: float
    pruned_limit: float | None
    masking: str

    @property
    def margin(self) -> float:
        """By how many dB quantization wins; negative where pruning does."""
        return difference(self.quantized, self.pruned)


@dataclass(frozen=True)
class OutputAnalysis:
    """One layer on images.

    Attributes:
        layer: its name.
        filters: how many it has.
        looked_at: how many of them the figures are of.
        inputs: weights of a filter.
        snr: of whole filters, one for each of `BITS`.
        blocks: of blocks of inputs, one for each of `BITS`; empty where no block has any output.
    """

    layer: str
    filters: int
    looked_at: int
    inputs: int
    snr: tuple[OutputSnr, ...]
    blocks: tuple[BlockSnr, ...]


def analyse_outputs(
    name: str, moments: InputMoments, rng: np.random.Generator
) -> OutputAnalysis | None:
    """One layer; None where its outputs never vary.

    Args:
        name: of the layer.
        moments: of its inputs.
        rng: draws filters and blocks.
    """
    G, m, d = moments.W.shape
    live = np.flatnonzero((moments.errors(np.zeros_like(moments.W)) > 0).reshape(-1))
    if not live.size:
        return None
    count = int(np.clip(_WORK // max(d, 1) ** 3, FEWEST_FILTERS, MOST_FILTERS))
    chosen = np.sort(rng.choice(live, min(count, live.size), replace=False))
    layer = _Layer(moments, [(int(f) // m, int(f) % m) for f in chosen])
    snr = tuple(layer.at(bits) for bits in BITS)
    blocks = analyse_blocks(layer.filters, layer.steps, rng)
    return OutputAnalysis(name, G * m, chosen.size, d, snr, tuple(blocks))


class _Layer:
    """Some filters of a layer, rounded and pruned."""

    def __init__(self, moments: InputMoments, places: list[tuple[int, int]]) -> None:
        used = sorted({g for g, _ in places})
        H = {g: moments.H[g].astype(np.float64) for g in used}
        self.filters = [Filter(H[g], moments.W[g, i], moments.gain[g, i]) for g, i in places]
        self.energy = sum(f.energy for f in self.filters)
        d = moments.W.shape[2]
        self.least: list[float] | None = None
        if d <= MOST_SPECTRAL:
            known = {g: least_eigenvalue(h) for g, h in H.items()}
            self.least = [known[g] for g, _ in places]
        self._prepared = {g: inputs(h[None]) for g, h in H.items()}
        self._of_group = {g: [n for n, p in enumerate(places) if p[0] == g] for g in used}
        self._greedy = None
        if d <= MOST_GREEDY:
            inverse = {g: np.asarray(np.linalg.inv(_ridged(h)), np.float64) for g, h in H.items()}
            found = [
                greedy_order(inverse[g], f.gain * f.w)
                for f, (g, _) in zip(self.filters, places, strict=True)
            ]
            order, added = (np.stack(x) for x in zip(*found, strict=True))
            self._greedy = order, added
        self.steps: dict[int, Floats] = {}

    def at(self, bits: int) -> OutputSnr:
        rounded, limit = self._rounded(bits)
        pruned, masking = self._pruned(bits)
        spectral = self.least is not None
        return OutputSnr(
            bits,
            decibels(self.energy, rounded),
            decibels(self.energy, limit) if spectral else None,
            decibels(self.energy, pruned),
            decibels(self.energy, self._pruning_limit(bits)) if spectral else None,
            masking,
        )

    def _rounded(self, bits: int) -> tuple[float, float]:
        """Error of compensated rounding, and its bound."""
        steps, error = np.zeros(len(self.filters)), 0.0
        for g, mine in self._of_group.items():
            W = np.stack([self.filters[n].w for n in mine])
            codes, step = compensated_codes(W[None], self._prepared[g], bits)
            for n, c, s in zip(mine, codes[0], step[0], strict=True):
                f = self.filters[n]
                error += f.error(s * c)
                steps[n] = s
        self.steps[bits] = steps
        if self.least is None:
            return error, 0.0
        top = float(top_code(bits))
        bound = sum(
            f.gain**2 * rounding_bound(f.H, least, f.w, float(s), top)
            for f, least, s in zip(self.filters, self.least, steps, strict=True)
        )
        return error, bound

    def _pruned(self, bits: int) -> tuple[float, str]:
        W = np.stack([f.w for f in self.filters])
        kept = kept_count(W.size, bits)
        found = {"magnitude": self._masked(magnitude_masks(W, kept))}
        if self._greedy is not None:
            found["greedy"] = self._masked(greedy_masks(*self._greedy, kept))
        best = min(found, key=found.__getitem__)
        return found[best], best

    def _masked(self, keep: Bools) -> float:
        pairs = zip(self.filters, keep, strict=True)
        return sum(f.gain**2 * mask_error(f.H, f.w, k) for f, k in pairs)

    def _pruning_limit(self, bits: int) -> float:
        assert self.least is not None
        parts = np.stack(
            [
                least * f.gain**2 * f.H.diagonal() * np.square(f.w)
                for f, least in zip(self.filters, self.least, strict=True)
            ]
        )
        return pruning_bound(parts, kept_count(parts.size, bits))


def _ridged(H: Floats) -> Floats:
    extra = _RIDGE * float(H.diagonal().mean())
    return np.asarray(H + (extra if extra > 0 else 1.0) * np.eye(len(H)))
