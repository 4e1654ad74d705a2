"""Rounding of a whole tensor to the integers −2^(n−1) … 2^(n−1) − 1 at its best step.

With codes c the best step is s = P/Q, P = Σ c·w, Q = Σ c², and Σw² − P²/Q the error left. As s
falls from +∞ the codes grow one by one, at s = |w|/(k − ½) from k − 1 to k: over all of these
breakpoints, sorted, P and Q are cumulative sums, and the largest P²/Q is the optimum. A tensor with
too many breakpoints is searched on a grid of steps instead, from the best of which rounding and
refit go on in turn until nothing changes; the error then is a smooth curve with hardly a ripple.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats, finite

_EXACT = 1 << 20  # breakpoints that are sorted
_STEPS, _ROUNDS = 96, 40


class IntegerGrid:
    """The weights of one tensor, sorted, so that a step costs 2^n look-ups.

    Raises:
        VerificationError: a weight is not finite.
    """

    def __init__(self, W: npt.ArrayLike) -> None:
        self._w = np.sort(finite(W, "weight").reshape(-1))
        self._sums = np.concatenate([[0.0], np.cumsum(self._w)])
        self.energy = float(np.dot(self._w, self._w))

    def error(self, step: float, bits: int) -> float:
        """Σ(w − ŵ)² of rounding to the nearest code at a step."""
        P, Q = self._fit(step, bits)
        return max(self.energy - 2.0 * step * P + step * step * Q, 0.0)

    def optimal_step(self, bits: int) -> float:
        """The step of least squared error; 0 where no step does better than zeros."""
        half = 1 << (bits - 1)
        w = self._w
        peaks = -w.min(initial=0.0) / half, w.max(initial=0.0) / max(half - 1, 0.5)
        if not max(peaks):
            return 0.0
        risen = np.count_nonzero(w > 0) * (half - 1) + np.count_nonzero(w < 0) * half
        return self._exact(half) if risen <= _EXACT else self._searched(bits)

    def _exact(self, half: int) -> float:
        sides = ((-self._w[self._w < 0], half), (self._w[self._w > 0], half - 1))
        at, w, k = (np.concatenate(x) for x in zip(*(_rises(*s) for s in sides), strict=True))
        if not at.size:
            return 0.0
        order = np.argsort(-at, kind="stable")
        P, Q = np.cumsum(w[order]), np.cumsum(2.0 * k[order] - 1.0)
        best = int(np.argmax(P * P / Q))
        return float(P[best] / Q[best])

    def _searched(self, bits: int) -> float:
        half = 1 << (bits - 1)
        low = 0.5 * float(np.abs(self._w).mean()) / half
        high = 4.0 * float(max(-self._w[0], self._w[-1])) / half
        for _ in range(2):  # over all, then around the best
            steps: Floats = np.geomspace(low, high, _STEPS)
            best = int(np.argmin([self.error(float(s), bits) for s in steps]))
            low, high = steps[max(best - 1, 0)], steps[min(best + 1, _STEPS - 1)]
        step = float(steps[best])
        for _ in range(_ROUNDS):
            P, Q = self._fit(step, bits)
            new = P / Q if P > 0 and Q > 0 else step
            if new == step:
                break
            step = new
        return step

    def _fit(self, step: float, bits: int) -> tuple[float, float]:
        """Σ c·w and Σ c² of the nearest codes."""
        half = 1 << (bits - 1)
        codes = np.arange(-half, half)
        at = np.searchsorted(self._w, step * (codes[1:] - 0.5))
        at = np.concatenate([[0], at, [self._w.size]])
        return float(codes @ np.diff(self._sums[at])), float((codes**2) @ np.diff(at))


def _rises(magnitude: Floats, top: int) -> tuple[Floats, Floats, Floats]:
    """(step, |w|, code) at which each code up to `top` is reached."""
    k = np.tile(np.arange(1.0, top + 1), (magnitude.size, 1))
    at = magnitude[:, None] / (k - 0.5)
    w = np.broadcast_to(magnitude[:, None], k.shape)
    return at.reshape(-1), w.reshape(-1), k.reshape(-1)
