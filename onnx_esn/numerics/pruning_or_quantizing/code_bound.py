"""Below what the error of rounding cannot get, whatever codes are chosen: a semidefinite bound.

Values a (n,) in units of the step, codes c = a + z among ±½, ±1½ … ±top, error zᵀ P z. No code lies
between the two neighbours of a value, and none beyond ±top:

    (c_i − l_i)(c_i − u_i) ≥ 0,  u_i = l_i + 1        z_i² + δ_i z_i ≥ (1 − δ_i²)/4,  δ = 2a − l − u
    s_i c_i ≤ top,  s_i = sign(a_i)                   s_i z_i + e_i ≤ 0,  e_i = |a_i| − top,

the second for values beyond ±top. For multipliers λ, μ ≥ 0 with P − diag(λ) positive definite, the
least of the Lagrangian over all real z is a bound; with b = μs − λδ it is

    g(λ, μ) = Σ λ(1 − δ²)/4 + Σ μe − ¼ bᵀ (P − diag λ)⁻¹ b.

Its largest value, which Newton steps with a barrier come near from below, is that of Park and
Boyd's semidefinite relaxation. Every g(λ, μ) on the way is a bound, so that nothing hangs on how
well that succeeds.

Source: Park and Boyd (2018), "A semidefinite programming method for integer convex quadratic
minimization"; the relaxation's dual, the limits ±top and the way to the optimum are written here.
"""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.midrise import Floats

_WEIGHTS = tuple(0.1**k for k in range(1, 8))  # of the barrier; a mean P_ii counts as 1
_STEPS = 10  # of Newton at each, at most
_SETTLED = 0.1  # of what the barrier weighs: a smaller gain is not worth another step


def code_bound(P: Floats, a: Floats, top: float) -> float:
    """A lower bound of the least (a − c)ᵀ P (a − c), c half-integers up to ±top.

    Args:
        P: symmetric and positive definite (n, n).
        a: the values (n,) in units of the step.
        top: the largest code.
    """
    if not a.size:
        return 0.0
    scale = float(np.trace(P)) / a.size
    return max(_Dual(P / scale, a, top).best(), 0.0) * scale


class _Dual:
    def __init__(self, P: Floats, a: Floats, top: float) -> None:
        self.P = P
        lower = np.clip(np.floor(a - 0.5) + 0.5, -top, top - 1.0)
        self.delta = 2.0 * a - 2.0 * lower - 1.0
        self.beyond = np.flatnonzero(np.abs(a) > top)
        self.sign = np.sign(a[self.beyond])
        self.e = np.abs(a[self.beyond]) - top
        self.gain = (1.0 - np.square(self.delta)) / 4.0

    def best(self) -> float:
        """The largest g that was met."""
        n = self.delta.size
        least = float(np.linalg.eigvalsh(self.P)[0])
        if least <= 0:
            return 0.0
        x = np.concatenate([np.full(n, 0.5 * least), np.full(self.beyond.size, 0.1)])
        best = 0.0
        for weight in _WEIGHTS:
            for _ in range(_STEPS):
                x, value, gain = self._newton(x, weight)
                best = max(best, value)
                if gain < _SETTLED * weight:
                    break
        return best

    def _newton(self, x: Floats, weight: float) -> tuple[Floats, float, float]:
        """One step towards the largest g + barrier, g there, and what the step gained."""
        n = self.delta.size
        lam = x[:n]
        inverse = np.linalg.inv(self.P - np.diag(lam))
        z = -0.5 * inverse @ self._b(x)
        # How z moves the two kinds of constraint: v for those of λ, s for those of μ.
        v = z + 0.5 * self.delta
        J = np.zeros((x.size, n))
        J[np.arange(n), np.arange(n)] = 2.0 * v
        J[n + np.arange(self.beyond.size), self.beyond] = -self.sign
        slope = np.concatenate(
            [self.gain - z * (z + self.delta), self.sign * z[self.beyond] + self.e]
        )
        slope += weight / x
        slope[:n] -= weight * inverse.diagonal()
        curve = 0.5 * J @ inverse @ J.T + np.diag(weight / np.square(x))
        curve[:n, :n] += weight * np.square(inverse)
        step = np.linalg.solve(curve, slope)
        return self._searched(x, step, weight)

    def _searched(self, x: Floats, step: Floats, weight: float) -> tuple[Floats, float, float]:
        """As far along the step as g + barrier grows."""
        before = self._value(x, weight)
        if before is None:
            return x, -np.inf, 0.0
        down = step < 0
        length = min(1.0, 0.99 * float((-x[down] / step[down]).min(initial=np.inf)))
        for _ in range(30):
            after = self._value(x + length * step, weight)
            if after is not None and after[0] >= before[0]:
                return x + length * step, after[1], after[0] - before[0]
            length *= 0.5
        return x, before[1], 0.0

    def _value(self, x: Floats, weight: float) -> tuple[float, float] | None:
        """(g + barrier, g); None outside."""
        n = self.delta.size
        try:
            L = np.linalg.cholesky(self.P - np.diag(x[:n]))
        except np.linalg.LinAlgError:
            return None
        y = np.linalg.solve(L, self._b(x))
        g = float(x[:n] @ self.gain + x[n:] @ self.e - 0.25 * y @ y)
        return g + weight * float(2.0 * np.log(L.diagonal()).sum() + np.log(x).sum()), g

    def _b(self, x: Floats) -> Floats:
        n = self.delta.size
        b = -x[:n] * self.delta
        b[self.beyond] += x[n:] * self.sign
        return b
