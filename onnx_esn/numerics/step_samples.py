"""Where the best step of a filter lies, from the errors at samples of steps.

For many bits the bounds of `step_cells` turn away little: most weights change their codes between
one step and the next. But the error is no wilder than its weights' roundings: where Δ moves by a
share ε, a weight of code c moves by c·ε of a step, and while that is below about a quarter for the
typical weight the error is smooth. So it is sampled twice in single precision, on a geometric grid
over the whole range, then on a fine one over what the first leaves: its ripple is about 0.9/√K of
it (the mean square of K rounding errors), so that what comes within five times that of the best
stays, with one grid point more on each side. `step_size` sweeps all codes next to the best three.

A filter of many weights that already lies on a coarser grid, or has few distinct values, is the
exception: its step is a dip too narrow to be seen. Grids are looked for first (`grid.detect_grid`),
and `step_search` holds what it finds against the best step of five bits.

Of filters of 130 to 8,500 weights, normal, Laplace, uniform and heavy-tailed, none had an error
0.1 % above that of the best step at 6 to 8 bits (`tests/numerics/test_step_size.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_COARSE = 24
_FINE = 96
_BEST = 3
_RIPPLE = 5.0


def neighbourhoods(
    A: Floats, rises: int, lowest: float, low: Floats, high: Floats
) -> list[tuple[Floats, Floats]]:
    """Ranges (m,), (m,) next to the best samples of the steps low … high (m,), best first.

    Args:
        A: magnitudes (m, K), none all zero.
        rises: how often a code can go up.
        lowest: the smallest magnitude of codes, ½ or 0.
        low, high: (m,), the range of steps.
    """
    A32 = A.astype(np.float32)
    coarse = _geometric(low, high, _COARSE)
    errors = _errors(A32, coarse, rises, lowest)
    margin = 1.0 + _RIPPLE / np.sqrt(A.shape[1])
    near = errors <= margin * errors.min(axis=1, keepdims=True)
    first, last = near.argmax(axis=1), _COARSE - 1 - near[:, ::-1].argmax(axis=1)
    fine = _geometric(*_around(coarse, first, last), _FINE)
    best = np.argsort(_errors(A32, fine, rises, lowest), axis=1, kind="stable")[:, :_BEST]
    return [_around(fine, sample, sample) for sample in best.T]


def _geometric(low: Floats, high: Floats, points: int) -> Floats:
    ratio = np.linspace(0.0, 1.0, points)
    return np.asarray(low[:, None] * (high / low)[:, None] ** ratio)


def _around(
    grid: Floats, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """The grid points before the first and after the last."""
    rows, end = np.arange(grid.shape[0]), grid.shape[1] - 1
    return grid[rows, np.maximum(first - 1, 0)], grid[rows, np.minimum(last + 1, end)]


def _errors(A: npt.NDArray[np.float32], grid: Floats, rises: int, lowest: float) -> Floats:
    """‖A − Δ·codes‖² (m, n) at n steps (m, n), in single precision."""
    x, code, errors = np.empty_like(A), np.empty_like(A), np.empty(grid.shape)
    half, middle = np.float32(0.5 - lowest), np.float32(lowest)
    for j, delta in enumerate(grid.T.astype(np.float32)):
        np.multiply(A, (1 / delta)[:, None], out=x)
        if half:
            np.add(x, half, out=code)
            np.floor(code, out=code)
        else:
            np.floor(x, out=code)
        np.minimum(code, rises, out=code)
        x -= code
        x -= middle
        errors[:, j] = np.einsum("mk,mk->m", x, x) * (delta * delta)
    return errors
