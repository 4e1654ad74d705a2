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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.positive_definite import solve

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


def cross_moments(x: npt.ArrayLike, y: npt.ArrayLike) -> CrossMoments:
    """Moments of inputs x (G, n, d) and outputs y (G, n, m); products in float32, sums in float64.

    Centred before they are multiplied, so that a large mean costs no precision.
    """
    x, y = np.asarray(x), np.asarray(y)
    x_mean, y_mean = x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)
    a = (x - x_mean[:, None]).astype(np.float32)
    b = (y - y_mean[:, None]).astype(np.float32)
    bt = b.transpose(0, 2, 1)
    return CrossMoments(
        x.shape[1],
        x_mean,
        y_mean,
        (a.transpose(0, 2, 1) @ a).astype(np.float64),
        (bt @ a).astype(np.float64),
        np.einsum("gnm,gnm->gm", b, b, dtype=np.float64),
    )


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
    diagonal = np.einsum("gii->gi", H)
    mean = diagonal.mean(axis=1)
    error = (moments.C - W0 @ H).transpose(0, 2, 1)
    diagonal += np.where(mean > 0, ridge * mean, 1.0)[:, None]  # H is H + λD from here on
    return np.asarray(W0 + solve(H, error).transpose(0, 2, 1))


def choose_ridge(
    halves: tuple[CrossMoments, CrossMoments], W0: Floats, ridges: Sequence[float] = RIDGES
) -> float:
    """The λ whose fit on either half predicts the other one best."""
    errors = []
    for ridge in ridges:
        error = 0.0
        for fitted, judged in (halves, halves[::-1]):
            if fitted.count and judged.count:
                W = refit(fitted, W0, ridge)
                error += float((quadratic(W, judged.H) - 2 * (W * judged.C).sum(axis=2)).sum())
        errors.append(error)
    # The stronger one where two are as good.
    least = min(errors)
    scale = abs(least) + 1e-300
    return max(r for r, e in zip(ridges, errors, strict=True) if e <= least + 1e-6 * scale)
