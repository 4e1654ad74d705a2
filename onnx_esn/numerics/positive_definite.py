"""Stacks of symmetric positive definite matrices: factors of their inverses, and linear systems.

Half the work of general inverses and LU, and no loss of symmetry.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Below this size a stack at once beats one LAPACK call a matrix.
_SMALL = 32


def inverse_factor(H: Floats) -> Floats:
    """Upper triangular U (G, d, d) with UᵀU = H⁻¹.

    With rows and columns turned round, H = R Rᵀ for an upper triangular R; then U = R⁻¹.

    Raises:
        numpy.linalg.LinAlgError: a matrix is not positive definite.
    """
    # A matrix may take more than the layer it belongs to, so none is held longer than needed.
    R = np.ascontiguousarray(np.linalg.cholesky(H[:, ::-1, ::-1])[:, ::-1, ::-1])
    if H.shape[1] <= _SMALL:
        return np.triu(np.linalg.inv(R))
    from scipy.linalg import lapack

    for r in R:
        r[...] = np.triu(_checked(*lapack.dtrtri(r)))
    return R


def solve(A: Floats, B: Floats) -> Floats:
    """X (G, d, m) with A X = B.

    Raises:
        numpy.linalg.LinAlgError: a matrix is not positive definite.
    """
    if A.shape[1] <= _SMALL:
        return np.asarray(np.linalg.solve(A, B))
    from scipy import linalg

    factors = [linalg.cho_factor(a, lower=True, check_finite=False) for a in A]
    found = [linalg.cho_solve(f, b, check_finite=False) for f, b in zip(factors, B, strict=True)]
    return np.stack(found) if found else B


def _checked(matrix: Floats, info: int) -> Floats:
    if info:
        raise np.linalg.LinAlgError(f"a triangular factor is singular at {info - 1}")
    return matrix
