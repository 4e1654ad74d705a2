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

    With rows and columns turned round, H is L Lᵀ for a lower triangular L; then U is L⁻¹, turned
    back.

    Raises:
        numpy.linalg.LinAlgError: a matrix is not positive definite.
    """
    if H.shape[1] <= _SMALL:
        R = np.linalg.cholesky(H[:, ::-1, ::-1])[:, ::-1, ::-1]
        return np.triu(np.linalg.inv(np.ascontiguousarray(R)))
    from scipy.linalg import lapack

    # In place, as a matrix may take more than the layer it belongs to: LAPACK reads rows as
    # columns, so that what it knows as the upper factor Lᵀ is L here.
    U = np.array(H[:, ::-1, ::-1], np.float64, order="C")
    for u in U:
        factor = _checked(*lapack.dpotrf(u.T, lower=0, clean=1, overwrite_a=1))
        inverse = _checked(*lapack.dtrtri(factor, lower=0, overwrite_c=1))
        u[...] = inverse.T  # the same memory
    return np.ascontiguousarray(U[:, ::-1, ::-1])


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
        raise np.linalg.LinAlgError(f"not positive definite at {info - 1}")
    return matrix
