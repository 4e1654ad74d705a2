"""Second moments of a layer's inputs, and with its wanted outputs; weights refitted from them.

For inputs x (d,) and wanted outputs y (m,), both centred, in each of G groups:

    H = E[x xᵀ]  (d, d),   C = E[y xᵀ]  (m, d)

The weights that come closest to y, and yet stay near the given ones W₀, minimise
E‖y − Wx‖² + λ‖(W − W₀)D^½‖², which W = W₀ + (C − W₀H)(H + λD)⁻¹ does. D is the mean of H's
diagonal; λ is found by fitting on one half of the samples and judging on the other: with few
images least squares learns their noise.

Source: He et al. (2017), "Channel pruning for accelerating very deep neural networks", for the
refit; ridge towards the given weights and the choice of λ are ours. Merging: Chan et al. (1983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.positive_definite import solve

Reals = npt.NDArray[Any]

# Large values leave the weights as they are.
RIDGES = (0.1, 1.0, 10.0, 1e4)


@dataclass(frozen=True, eq=False)
class CrossMoments:
    """Sums over n samples.

    Attributes:
        count: n.
        x_mean: (G, d).
        y_mean: (G, m).
        xx: Σ centred x xᵀ, (G, d, d); in single precision where many are held at once.
        yx: Σ centred y xᵀ, (G, m, d).
        yy: Σ centred y², (G, m).
    """

    count: int
    x_mean: Floats
    y_mean: Floats
    xx: npt.NDArray[np.floating]
    yx: Floats
    yy: Floats

    @property
    def H(self) -> Floats:  # noqa: N802
        """Covariance of the inputs (G, d, d), made anew."""
        H: Floats = np.divide(self.xx, max(self.count, 1), dtype=np.float64)
        return H

    @property
    def C(self) -> Floats:  # noqa: N802
        """Covariance of outputs and inputs (G, m, d)."""
        return self.yx / max(self.count, 1)

    @property
    def singular(self) -> bool:
        """Whether H is for sure: fewer samples than inputs, or an input that never changes.

        What solves with it adds to its diagonal then, as always; but the data says less than it
        might seem to.
        """
        diagonal = np.einsum("gii->gi", self.xx)
        return self.count <= self.xx.shape[1] or not bool((diagonal > 0).all())

    def merge(self, other: CrossMoments) -> CrossMoments:
        """The moments of both sets of samples together."""
        n = self.count + other.count
        share = other.count / max(n, 1)
        dx, dy = other.x_mean - self.x_mean, other.y_mean - self.y_mean
        k = self.count * share
        # Of many inputs each of these takes more than the layer: not one more than needed.
        xx, yx = k * dx[:, :, None] * dx[:, None, :], k * dy[:, :, None] * dx[:, None, :]
        return CrossMoments(
            n,
            self.x_mean + share * dx,
            self.y_mean + share * dy,
            np.add(self.xx + other.xx, xx, out=xx),
            np.add(self.yx + other.yx, yx, out=yx),
            self.yy + other.yy + k * dy * dy,
        )


def cross_moments(
    x: npt.ArrayLike, y: npt.ArrayLike, before: CrossMoments | None = None
) -> CrossMoments:
    """Moments of inputs x (G, n, d) and outputs y (G, n, m); products in float32, sums in float64.

    Centred before they are multiplied, so that a large mean costs no precision.

    Args:
        x, y: the samples.
        before: of other samples, to be merged with; its sums are added to in place.
    """
    x, y = np.asarray(x), np.asarray(y)
    n = x.shape[1]
    x_mean, y_mean = x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)
    a, b = _centred(x, x_mean), _centred(y, y_mean)
    if before is None or not before.count:
        xx, yx, yy = _products(a, b)
        return CrossMoments(n, x_mean, y_mean, xx.astype(np.float64), yx.astype(np.float64), yy)
    total = before.count + n
    share = n / total
    dx, dy = x_mean - before.x_mean, y_mean - before.y_mean
    # What the means differ is one sample more: no matrix of its own for it.
    weight = np.sqrt(before.count * share)
    a[:, n], b[:, n] = weight * dx, weight * dy
    sums: tuple[Reals, ...] = before.xx, before.yx, before.yy
    for old, new in zip(sums, _products(a, b), strict=True):
        old += new
    return replace(
        before, count=total, x_mean=before.x_mean + share * dx, y_mean=before.y_mean + share * dy
    )


def _centred(x: npt.NDArray[Any], mean: Floats) -> npt.NDArray[np.float32]:
    """Samples (G, n, d) without their mean, and a row of zeros behind."""
    G, n, d = x.shape
    centred = np.zeros((G, n + 1, d), np.float32)
    # float32 minus float32, where it loses nothing: in half the time.
    single = x.dtype == np.float32
    np.subtract(
        x,
        mean[:, None].astype(np.float32) if single else mean[:, None],
        out=centred[:, :n],
        casting="same_kind",
    )
    return centred


def _products(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Floats]:
    xx, yx = a.transpose(0, 2, 1) @ a, b.transpose(0, 2, 1) @ a
    return xx, yx, np.einsum("gnm,gnm->gm", b, b, dtype=np.float64)


def no_moments(G: int, m: int, d: int) -> CrossMoments:
    """Moments of no sample."""
    zeros = [np.zeros(shape) for shape in ((G, d), (G, m), (G, d, d), (G, m, d), (G, m))]
    return CrossMoments(0, *zeros)


def quadratic(W: Floats, H: Floats) -> Floats:
    """Variance (G, m) of Wx for inputs of covariance H."""
    return np.asarray(np.einsum("gmd,gmd->gm", W @ H, W))


def refit(moments: CrossMoments, W0: Floats, ridge: float) -> Floats:
    """The weights (G, m, d) closest to the wanted outputs, drawn to W₀ by `ridge` = λ."""
    H = moments.H
    error = moments.C - W0 @ H
    return W0 + _change(H, error, ridge)


def _change(H: Reals, error: Reals, ridge: float) -> Reals:
    """What E = C − W₀H, (G, m, d), asks to be added to W₀; H becomes H + λD."""
    diagonal = np.einsum("gii->gi", H)
    mean = diagonal.mean(axis=1)
    diagonal += np.where(mean > 0, ridge * mean, 1.0).astype(H.dtype)[:, None]
    return np.asarray(solve(H, error.transpose(0, 2, 1)).transpose(0, 2, 1))


def _single(moments: CrossMoments, W0: Floats) -> tuple[Reals, Reals]:
    """H (G, d, d) and C − W₀H (G, m, d) in float32."""
    H = np.divide(moments.xx, max(moments.count, 1), dtype=np.float64).astype(np.float32)
    return H, (moments.C - W0.astype(np.float32) @ H).astype(np.float32)


def choose_ridge(
    halves: tuple[CrossMoments, CrossMoments], W0: Floats, ridges: Sequence[float] = RIDGES
) -> float:
    """The λ whose fit on either half predicts the other one best.

    In single precision: the candidates are far apart, and it takes half the time.
    """
    errors = [0.0] * len(ridges)
    some = [half for half in halves if half.count]
    if len(some) == len(halves):
        H, E = zip(*(_single(half, W0) for half in halves), strict=True)
        for i, ridge in enumerate(ridges):
            for fitted, judged in ((0, 1), (1, 0)):
                V = _change(H[fitted].copy(), E[fitted], ridge)
                # Of W₀ + V, less that of W₀: VHVᵀ − 2·V(C − W₀H)ᵀ.
                errors[i] += float(((V @ H[judged] - 2 * E[judged]) * V).sum(dtype=np.float64))
    # The stronger one where two are as good.
    least = min(errors)
    scale = sum(float(half.yy.sum()) / half.count for half in some)
    good = [r for r, e in zip(ridges, errors, strict=True) if e <= least + 1e-6 * scale]
    return max(good, default=max(ridges))  # none where numbers are too large for their type
