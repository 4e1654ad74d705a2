"""Rounding to codes with error compensation: the error of one weight is made good by the others.

A filter w (d,) whose inputs have second moments H (d, d) makes the squared output error
(w − ŵ)ᵀ H (w − ŵ). Plain rounding minimises ‖w − ŵ‖², blind to inputs that go together.

1. *Sequential rounding*: weights are rounded one after another, the loudest input first; what that
   adds to the output error is taken back, in the least-squares sense, by those still free. With
   UᵀU = H⁻¹ (U upper triangular): w_j −= (w_i − ŵ_i)·U_ij/U_ii for j > i.
2. *Coordinate descent*: each code in turn becomes the best one given all others,
   c_i ← round(c_i − (H(ŵ − w))_i/(H_ii·Δ)). The error cannot grow.
3. *Step refit*: for codes c the best step is Δ = wᵀHc / cᵀHc.

Step 1 is done for several Δ around the one of least ‖w − ŵ‖², and the best goes on to 2 and 3; or
plain rounding does, where that is better, so that the result never is worse than it. With the Δ
found so far, step 1 is done again on several paths at once (`survivors`), then 2 and 3; the better
result stays.

Sources: Frantar et al. (2023), "GPTQ", for 1 (Babai's nearest plane, in the words of lattices);
Zhang et al. (2024), "COMQ", for 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.positive_definite import inverse_factor
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.numerics.survivors import surviving_codes

# Of the mean of H's diagonal, added to it: singular moments still leave one best rounding.
DAMPING = 1e-3
# Steps that are tried, relative to the one of least ‖w − ŵ‖².
FACTORS = tuple(float(f) for f in np.geomspace(0.6, 1.45, 12))
SWEEPS = 4
# Paths of the second sequential rounding.
SURVIVORS = 16
# Steps that it tries, relative to the one found before; the last of these alone in layers of so
# many inputs that each attempt takes seconds.
NEARBY = (0.96, 1.04, 1.0)
MANY = 1024
_AGAIN = 2  # sweeps after that
_BLOCK = 64  # inputs between two products with matrices
_AT_ONCE = 1 << 23  # weights

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the inputs of a layer say about its rounding, the same for all bits: see `inputs`.

    Attributes:
        H: their damped second moments (G, d, d), the loudest input first.
        unit: U (G, d, d) of `H`, float32, each row divided by its diagonal.
        weight: 1 / U_ii² (G, d), relative to the largest: what an error counts that those after it
            have made good as far as they can.
        order: which input comes first (G, d).
    """

    H: Floats
    unit: Array
    weight: Floats
    order: npt.NDArray[np.int64]


def inputs(H: npt.ArrayLike, damping: float = DAMPING) -> Inputs:
    """Prepare second moments (G, d, d), symmetric and positive semidefinite, for rounding.

    Args:
        H: the moments.
        damping: share of their mean diagonal that is added to it.
    """
    H = _damped(np.asarray(H, np.float64), damping)
    # The loudest input first, so that its error can be made good by the most.
    order = np.argsort(-np.einsum("gii->gi", H), axis=1, kind="stable")
    g = np.arange(len(H))[:, None]
    H = H[g[:, :, None], order[:, :, None], order[:, None, :]]
    U = inverse_factor(H)
    diagonal = np.einsum("gii->gi", U).copy()
    unit = np.ascontiguousarray(U / diagonal[:, :, None], np.float32)
    weight = (diagonal.min(axis=1, initial=np.inf, keepdims=True) / diagonal) ** 2
    return Inputs(H, unit, weight, order)


def compensated_codes(
    W: npt.ArrayLike,
    H: npt.ArrayLike | Inputs,
    bits: npt.ArrayLike,
    *,
    quantizer: Quantizer = MID_RISE,
    factors: tuple[float, ...] = FACTORS,
    sweeps: int = SWEEPS,
    survivors: int = SURVIVORS,
) -> tuple[Floats, Floats]:
    """Return codes W_int (G, m, d) and steps Δ (G, m) of little error (w − ŵ)ᵀ H (w − ŵ).

    Args:
        W: filters (G, m, d): m filters in each of G groups, which read d inputs.
        H: second moments (G, d, d) of the inputs, or what `inputs` made of them.
        bits: 0 … 8, (G, m) or a scalar; codes and step are 0 where it is 0 and where w is.
        quantizer: the grid.
        factors: steps to try, relative to the quantizer's own.
        sweeps: rounds of coordinate descent and refit.
        survivors: paths of the second sequential rounding; 1: there is none.

    Raises:
        VerificationError: a weight is not finite.
    """
    W, x = np.asarray(W, np.float64), H if isinstance(H, Inputs) else inputs(H)
    G, m, d = W.shape
    b = np.broadcast_to(np.asarray(bits, np.int64), (G, m))
    step = quantizer.optimal_step(W.reshape(-1, d), b.reshape(-1)).reshape(G, m)
    top = np.where(step > 0, quantizer.top_code(b), 0.0)
    W = np.take_along_axis(W, x.order[:, None, :], axis=2)
    codes, delta = np.empty((G, m, d)), np.empty((G, m))
    nearby = () if survivors == 1 else NEARBY if d <= MANY else NEARBY[-1:]
    size = max(1, _AT_ONCE // (G * d * max(len(factors), survivors)))
    for first in range(0, m, size):
        part = slice(first, first + size)
        rounder = _Rounder(W[:, part], x, top[:, part], quantizer)
        plain = np.where(step > 0, step, 1.0)[:, part]
        found = rounder.descend(rounder.best_start(plain, factors), plain, sweeps)
        tried = [found.step * factor for factor in nearby]
        for near in tried:
            start = rounder.follow(near, survivors)
            found = found.or_better(rounder.descend(start, near, min(sweeps, _AGAIN)))
        codes[:, part], delta[:, part] = found.codes, found.step
    back = np.argsort(x.order, axis=1, kind="stable")
    codes = np.take_along_axis(codes, back[:, None, :], axis=2)
    live = codes.any(axis=2)
    return codes, np.where(live, delta, 0.0)


class _Rounded(NamedTuple):
    """Codes (G, k, d), steps (G, k), and by how much the error (G, k) is below wᵀHw."""

    codes: Floats
    step: Floats
    gain: Floats

    def or_better(self, other: _Rounded) -> _Rounded:
        """Filter by filter the one of less error."""
        take = other.gain > self.gain
        codes = np.where(take[..., None], other.codes, self.codes)
        step, gain = (np.where(take, y, x) for x, y in zip(self[1:], other[1:], strict=True))
        return _Rounded(codes, step, gain)


class _Rounder:
    """Filters (G, k, d) of which codes are sought, with the moments of their inputs."""

    def __init__(self, W: Floats, x: Inputs, top: Floats, quantizer: Quantizer) -> None:
        self.W, self.WH, self.top, self.quantizer = W, W @ x.H, top, quantizer
        self.x, self.H32 = x, x.H.astype(np.float32)

    def best_start(self, step: Floats, factors: tuple[float, ...]) -> Floats:
        """Codes (G, k, d): of plain rounding, or of a sequential one at the best step tried."""
        G, k, d = self.W.shape
        F = len(factors)
        steps = (step[..., None] * np.asarray(factors)).reshape(G, k * F)
        V = np.repeat(self.W, F, axis=1) / steps[..., None]
        V = np.ascontiguousarray(V.transpose(0, 2, 1), np.float32)
        top = np.repeat(self.top, F, axis=1).astype(np.float32)
        C = self._sequential(V, top).transpose(0, 2, 1).reshape(G, k, F, d)
        nearest = self.quantizer.round_codes(self.W / step[..., None], self.top[..., None])
        C = np.concatenate([nearest[:, :, None].astype(np.float32), C], axis=2)
        CH = (C.reshape(G, -1, d) @ self.H32).reshape(C.shape)
        a = np.einsum("gkd,gkfd->gkf", self.WH, C)
        q = np.einsum("gkfd,gkfd->gkf", CH, C, dtype=np.float64)
        # With its best step the error is wᵀHw − a²/q; codes that point away are turned round.
        gain = np.where(q > 0, a * a / np.where(q > 0, q, 1.0), -1.0)
        best = gain.argmax(axis=2)[..., None]
        turn = np.where(np.take_along_axis(a, best, axis=2) < 0, -1.0, 1.0)
        return np.take_along_axis(C, best[..., None], axis=2)[:, :, 0] * turn + 0.0  # no −0

    def descend(self, C: Floats, step: Floats, sweeps: int) -> _Rounded:
        """Codes (G, k, d) after some rounds, at `step` (G, k) where no other would help."""
        CH = self._times_H(C)
        delta, gain = self._refit(C, CH, step)
        for _ in range(sweeps):
            C = self._sweep(C, CH, delta)
            CH = self._times_H(C)
            delta, gain = self._refit(C, CH, delta)
        return _Rounded(C, delta, gain)

    def follow(self, delta: Floats, survivors: int) -> Floats:
        """Codes (G, k, d) of sequential rounding on several paths, at steps (G, k)."""
        V = self.W / delta[..., None]
        x = self.x
        return surviving_codes(V, x.unit, x.weight, self.top, survivors, self.quantizer)

    def _sequential(self, V: Array, top: Array) -> Array:
        """Round V (G, d, r), which is overwritten."""
        U = self.x.unit
        d = V.shape[1]
        C = np.empty_like(V)
        for s in range(0, d, _BLOCK):
            e = min(s + _BLOCK, d)
            errors = np.empty((V.shape[0], e - s, V.shape[2]), V.dtype)
            for i in range(s, e):
                C[:, i] = self.quantizer.round_codes(V[:, i], top)
                errors[:, i - s] = error = V[:, i] - C[:, i]
                V[:, i + 1 : e] -= U[:, i, i + 1 : e, None] * error[:, None]
            V[:, e:] -= U[:, s:e, e:].transpose(0, 2, 1) @ errors
        return C

    def _times_H(self, C: Floats) -> Array:  # noqa: N802
        """CH (G, k, d) in single precision."""
        return np.asarray(C.astype(np.float32) @ self.H32)

    def _sweep(self, C: Floats, CH: Array, delta: Floats) -> Floats:
        """One round over all codes (G, k, d), each made the best given the others.

        CH is overwritten.
        """
        d = C.shape[2]
        CH -= self.WH / delta[..., None]  # half the gradient, in units of the step
        R = np.ascontiguousarray(CH.transpose(0, 2, 1))
        T = np.ascontiguousarray(C.transpose(0, 2, 1), np.float32)
        top = self.top.astype(np.float32)
        weight = 1.0 / np.einsum("gii->gi", self.H32)[..., None]
        for s in range(0, d, _BLOCK):
            e = min(s + _BLOCK, d)
            changes = np.empty((R.shape[0], e - s, R.shape[2]), np.float32)
            for i in range(s, e):
                new = self.quantizer.round_codes(T[:, i] - R[:, i] * weight[:, i], top)
                changes[:, i - s] = change = new - T[:, i]
                T[:, i] = new
                R[:, i + 1 : e] += self.H32[:, i, i + 1 : e, None] * change[:, None]
            R[:, e:] += self.H32[:, e:, s:e] @ changes
        return np.asarray(T.transpose(0, 2, 1), np.float64)

    def _refit(self, C: Floats, CH: Array, delta: Floats) -> tuple[Floats, Floats]:
        """Best steps (G, k) of codes, as they were where no step would help; and their gains."""
        a = np.einsum("gkd,gkd->gk", self.WH, C)
        q = np.einsum("gkd,gkd->gk", CH, C, dtype=np.float64)
        sound = (a > 0) & (q > 0)
        delta = np.where(sound, a / np.where(sound, q, 1.0), delta)
        return delta, delta * (2.0 * a - delta * q)


def _damped(H: Floats, damping: float) -> Floats:
    """H with a share of its mean diagonal on top; the identity where a group's inputs are dead."""
    mean = np.einsum("gii->gi", H).mean(axis=1)
    extra = np.where(mean > 0, damping * mean, 1.0)
    H = H.copy()
    np.einsum("gii->gi", H)[...] += extra[:, None]
    return H
