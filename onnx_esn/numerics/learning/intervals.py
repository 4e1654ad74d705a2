"""Weights and the intervals they are quantized in, learned together.

    t = clip(½ + (|w| − c)/(2d), 0, 1),   u = sign(w)·t^γ,   Ŵ = Δ·code(u·n)

with centre c, distance d and exponent γ of the interval for each filter. Below c − d a weight is
in the dead zone, above c + d it is clipped. On the mid-rise grid n = 2^(b−1) and the codes are
floor + ½; on the mid-tread grid n = 2^(b−1) − 1 and they are rounded. Of the rounding, gradients
see nothing (straight-through); Δ is a parameter of its own, as no BatchNormalization may follow
that could take it over.

Source: Jung et al. (2019), "Learning to quantize deep networks by optimizing quantization
intervals with task loss" (QIL), equations 1 to 4; the mid-rise grid, Δ and the start are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer

# Of a weight's cell, the part next to an edge in which no weight starts.
_MARGIN = 0.05
_LEAST_DISTANCE = 1e-3  # of the range a filter starts with
_SLOWER = 0.002  # of an interval, which moves the codes of many weights at once
_LEAST_EXPONENT, _MOST_EXPONENT = 0.25, 4.0


@dataclass
class Intervals:
    """The filters of one layer while they are learned.

    Attributes:
        W: latent weights (M, K).
        step: Δ (M,).
        centre, distance, exponent: c, d, γ (M,).
        bits: (M,); filters of 0 bits stay 0.
        quantizer: the grid.
    """

    W: Floats
    step: Floats
    centre: Floats
    distance: Floats
    exponent: Floats
    bits: Integers
    quantizer: Quantizer = MID_RISE

    def __post_init__(self) -> None:
        self._top = self.quantizer.top_code(self.bits)[:, None]
        self._levels = _levels(self.quantizer, self._top)
        self._range = np.maximum(2 * self.distance, np.finfo(np.float64).tiny)

    @property
    def parameters(self) -> dict[str, Floats]:
        """What is learned, by name; the arrays themselves."""
        return {
            "W": self.W,
            "step": self.step,
            "centre": self.centre,
            "distance": self.distance,
            "exponent": self.exponent,
        }

    @property
    def scales(self) -> dict[str, Floats]:
        """What counts as a large step of each parameter."""
        return {
            "W": self.step[:, None].copy(),
            "step": self.step.copy(),
            "centre": _SLOWER * self._range,
            "distance": _SLOWER * self._range,
            "exponent": np.full_like(self.exponent, _SLOWER),
        }

    def codes(self) -> Floats:
        """Codes (M, K)."""
        t, _ = self._position()
        u = np.sign(self.W) * t ** self.exponent[:, None]
        x = u * self._levels
        if self.quantizer is MID_RISE:  # −0.0 of a negative weight in the dead zone stays negative
            x = np.where((self.W < 0) & (x == 0), -0.5, x)
        return self.quantizer.round_codes(x, self._top)

    def values(self) -> Floats:
        """Ŵ (M, K)."""
        return self.codes() * self.step[:, None]

    def gradients(self, G: Floats) -> dict[str, Floats]:
        """Of the parameters, from that of Ŵ (M, K)."""
        t, inside = self._position()
        gamma, d = self.exponent[:, None], self.distance[:, None]
        live = self.step[:, None] * self._levels
        power = np.where(inside, t, 1.0) ** (gamma - 1)
        slope = np.where(inside, live * gamma * power / (2 * d), 0.0)  # ∂Ŵ/∂w
        sign = np.sign(self.W)
        along = G * sign * slope
        t_safe = np.where(inside, t, 1.0)
        return {
            "W": G * slope,
            "step": (G * self.codes()).sum(axis=1),
            "centre": -along.sum(axis=1),
            "distance": -(along * (np.abs(self.W) - self.centre[:, None]) / d).sum(axis=1),
            "exponent": (G * sign * live * t_safe**gamma * np.log(t_safe)).sum(axis=1),
        }

    def settle(self) -> None:
        """Bring parameters back to where they mean something, after a step."""
        np.clip(self.distance, _LEAST_DISTANCE * self._range, None, out=self.distance)
        np.clip(self.exponent, _LEAST_EXPONENT, _MOST_EXPONENT, out=self.exponent)
        np.clip(self.step, np.finfo(np.float64).tiny, None, out=self.step)

    def _position(self) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
        """t (M, K), and whether it lies strictly between 0 and 1."""
        t = 0.5 + (np.abs(self.W) - self.centre[:, None]) / (2 * self.distance[:, None])
        return np.clip(t, 0.0, 1.0), (t > 0) & (t < 1)


def intervals(
    W: Floats, codes: Floats, step: Floats, bits: Integers, quantizer: Quantizer = MID_RISE
) -> Intervals:
    """Start from codes (M, K) that are known to be good, of weights W (M, K).

    Each latent weight lies in the cell of its code, as near to its float value as that allows: a
    weight that was rounded away from it starts at the edge, where little turns it back.
    """
    top = quantizer.top_code(bits)[:, None]
    levels = _levels(quantizer, top)
    reach = np.where(levels > 0, levels, 1.0)[:, 0] * np.where(step > 0, step, 1.0)
    delta = np.where(step > 0, step, 1.0)[:, None]
    x = np.clip(W / delta, codes - 0.5 + _MARGIN, codes + 0.5 - _MARGIN)
    edge = np.maximum(levels - _MARGIN, 0.0)  # further out nothing would move it
    latent = np.clip(x, -edge, edge) * delta
    half = reach / 2
    return Intervals(
        latent, step.copy(), half.copy(), half.copy(), np.ones_like(step), bits, quantizer
    )


def narrowed(learned: Intervals, bits: Integers) -> Intervals:
    """The same latent weights (M, K) in intervals of these bits (M,), where that is fewer.

    Steps are those of least squared error for the latent weights.
    """
    fewer = bits < learned.bits
    if not fewer.any():
        return learned
    W = learned.W
    step = np.where(fewer, learned.quantizer.optimal_step(W, bits), learned.step)
    codes = learned.quantizer.encode(W, step, bits)
    fresh = intervals(W, codes, step, bits, learned.quantizer)
    for name, value in fresh.parameters.items():
        value[~fewer] = learned.parameters[name][~fewer]
    return Intervals(**fresh.parameters, bits=bits, quantizer=learned.quantizer)


def _levels(quantizer: Quantizer, top: Floats) -> Floats:
    """n: what u is multiplied with."""
    return top + 0.5 * (top > 0) if quantizer is MID_RISE else top
