"""What a block of features costs a least-squares consumer, while features leave one by one.

A consumer y = W x, with H = E[x xᵀ], loses block p. The best weights on what is left make up for
it, and with A = H⁻¹

    loss of p        tr(W_p (A_pp)⁻¹ W_pᵀ) = ‖W_p L⁻ᵀ‖²,  A_pp = L Lᵀ
    then             W ← W − V Uᵀ,  A ← A − U Uᵀ,  U = A_:p L⁻ᵀ,  V = W_p L⁻ᵀ

so that the losses of a sequence of blocks add up to the loss of the set. The columns U and V are
gathered and applied many at a time (as LAPACK blocks its factorizations): a removal then costs
O(d) per column gathered, not the O(d²) of a rewrite of A.

Features are scaled to E[x²] = 1 first, so that the ridge, ρ·diag(H), is ρ times the identity.
A feature that is always 0 has no influence, and its weights count as 0.

Source: Hassibi and Stork (1993), "Optimal brain surgeon"; Meng et al. (2024), "OSSCAR: one-shot
structured pruning", for blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats, finite

LEAST_RIDGE = 1e-9  # of diag(H): below it, A of a singular H is rounding error
_LEAF = 64  # features up to which a matrix is inverted at once
_ROWS = 512  # rows of A changed at a time


class Downdate:
    """The costs of the blocks of one consumer, and the consumer without some of them.

    H is (d, d), symmetric and positive semidefinite; W is (M, d); block is (d,), the number of
    the block of each feature in 0..blocks−1, or −1 for a feature that always stays. Costs are in
    the units of W H Wᵀ, times weight. Memory is two (d, d) and two (d, M) arrays.

    Raises:
        VerificationError: H or W is not finite, or H is far from positive semidefinite.
    """

    def __init__(
        self,
        H: npt.ArrayLike,
        W: npt.ArrayLike,
        block: Integers,
        blocks: int,
        *,
        ridge: float,
        weight: float = 1.0,
    ) -> None:
        H, W = finite(H, "the second moments"), finite(W, "the weights")
        if H.ndim != 2 or W.ndim != 2 or not H.shape == 2 * block.shape == 2 * W.shape[1:]:
            raise ValueError(
                f"H {H.shape}, W {W.shape}, owner {block.shape}: must be (d, d) (M, d) (d,)"
            )
        self._size = np.bincount(block[block >= 0], minlength=blocks)
        # Blocks are contiguous, and those of one size stand together; what stays comes last.
        size = np.append(self._size, np.iinfo(np.int64).max)[block]
        order = np.lexsort((block, size))
        self._block: Integers = block[order]
        energy = H.diagonal()[order]
        energy = np.where(energy > np.finfo(np.float64).tiny, energy, 0.0)
        root = np.sqrt(energy)
        T = np.ascontiguousarray(W[:, order].T) * (np.sqrt(weight) * root)[:, None]
        if T.shape[1] > T.shape[0] > 0:  # only WᵀW matters
            T = np.asarray(np.linalg.qr(T.T, mode="r")).T
        self._T = np.ascontiguousarray(T)  # (d, M)
        self._A = inverse_correlation(H, order, ridge)
        self._alive = np.ones(blocks, dtype=np.bool_)
        self._index()

    def _index(self) -> None:
        """Note where the blocks lie, and make room for columns."""
        live = self._block >= 0
        self._start = np.full(self._size.size, -1)
        blocks, first = np.unique(self._block[live], return_index=True)
        self._start[blocks] = first
        blocks = blocks[np.argsort(first)]
        sizes = self._size[blocks]
        self._groups = [(int(k), blocks[sizes == k]) for k in np.unique(sizes)]
        d = self._block.size
        room = max(int(np.clip(d // 8, 32, 256)), int(sizes.max(initial=0)))
        self._U = np.zeros((d, room), order="F")
        self._V = np.zeros((room, self._T.shape[1]))
        self._used = self._applied = 0  # columns there are; of which T has so many already

    def costs(self) -> Floats:
        """Return the loss (blocks,) that taking each block next would add; 0 for those gone."""
        self._apply()
        costs = np.zeros(self._size.size)
        U = self._U[:, : self._used]
        for k, blocks in self._groups:
            at = self._start[blocks[0]]
            rows = slice(at, at + k * blocks.size)
            T = self._T[rows].reshape(blocks.size, k, -1)
            alive = self._alive[blocks]
            if k == 1:
                A = self._A.diagonal()[rows] - np.einsum("du,du->d", U[rows], U[rows])
                cost = np.einsum("gkm,gkm->g", T, T) / np.where(alive, A, 1.0)
            else:
                index = np.arange(at, rows.stop).reshape(-1, k)
                Ug = U[rows].reshape(blocks.size, k, -1)
                A = self._A[index[:, :, None], index[:, None, :]] - Ug @ Ug.swapaxes(1, 2)
                A[~alive] = np.eye(k)
                gram = T @ T.swapaxes(1, 2)
                cost = np.trace(np.linalg.solve(A, gram), axis1=1, axis2=2)
            costs[blocks] = np.where(alive, np.maximum(cost, 0.0), 0.0)
        return costs

    def cost(self, block: int) -> float:
        """Return the loss that taking this one block next would add."""
        _, V = self._factor(block)
        return float(np.vdot(V, V))

    def remove(self, block: int) -> float:
        """Take the block away, refit the others and return the loss that it added."""
        if not self._alive[block] or not self._size[block]:
            return 0.0
        k = int(self._size[block])
        if self._used + k > self._U.shape[1]:
            self._flush()
        root, V = self._factor(block)
        columns = slice(self._used, self._used + k)
        self._U[:, columns] = (root @ self._rows(block)).T
        self._V[columns] = V
        self._used += k
        self._alive[block] = False
        return float(np.vdot(V, V))

    def _rows(self, block: int) -> Floats:
        """Return the rows (k, d) of A of a block as it is now."""
        rows = slice(self._start[block], self._start[block] + self._size[block])
        U = self._U[:, : self._used]
        return np.asarray(self._A[rows] - U[rows] @ U.T)

    def _factor(self, block: int) -> tuple[Floats, Floats]:
        """Return L⁻¹ (k, k) and Vᵀ (k, M) of a block as it is now."""
        rows = slice(self._start[block], self._start[block] + self._size[block])
        U = self._U[rows, : self._used]
        A = self._A[rows, rows] - U @ U.T
        # Blocks are small; BLAS's threads make solve_triangular slower than this by far.
        root = 1.0 / np.sqrt(A) if A.size == 1 else np.linalg.inv(np.linalg.cholesky(A))
        late = slice(self._applied, self._used)
        T = self._T[rows] - U[:, late] @ self._V[late]
        return root, root @ T

    def _apply(self) -> None:
        """Bring the weights up to date."""
        late = slice(self._applied, self._used)
        if late.stop > late.start:
            self._T -= self._U[:, late] @ self._V[late]
            self._applied = self._used

    def _flush(self) -> None:
        """Bring the weights and A up to date, without what is gone."""
        self._apply()
        live = np.flatnonzero(np.append(self._alive, True)[self._block])
        U = self._U[live, : self._used]
        A = np.empty((live.size, live.size))
        for i in range(0, live.size, _ROWS):
            rows = slice(i, i + _ROWS)
            A[rows] = self._A[live[rows]][:, live] - U[rows] @ U.T
        self._A, self._T, self._block = A, self._T[live], self._block[live]
        self._index()


def inverse_correlation(H: Floats, order: Integers, ridge: float) -> Floats:
    """Return the inverse (d, d) of the features' correlations plus ridge, features in this order.

    Correlations are not centred: E[x_i x_j] / √(E[x_i²] E[x_j²]). Only rounding errors make them
    indefinite; then the ridge grows tenfold until they are not.

    Raises:
        VerificationError: H is far from positive semidefinite.
    """
    energy = H.diagonal()[order]
    some = energy > np.finfo(np.float64).tiny
    scale = np.where(some, 1.0 / np.sqrt(np.where(some, energy, 1.0)), 0.0)
    ridge = max(ridge, LEAST_RIDGE)
    while ridge <= 1.0:
        S = H[np.ix_(order, order)]
        S *= scale
        S *= scale[:, None]
        np.fill_diagonal(S, 1.0 + ridge)
        try:
            _invert(S)
        except np.linalg.LinAlgError:
            ridge = max(10 * ridge, 1e-6)
        else:
            return np.asarray(S)
    raise VerificationError("the second moments of the features are not positive semidefinite")


def _invert(S: Floats) -> None:
    """Invert S (n, n), symmetric, in place; LinAlgError if it is not positive definite.

    In halves by the Schur complement of the first, which leaves the work to matrix products:
    where other processes share the cores, LAPACK's threads wait for each other many times longer.
    """
    if S.shape[0] <= _LEAF:
        root = np.linalg.inv(np.linalg.cholesky(S))
        S[...] = root.T @ root
        return
    half = S.shape[0] // 2
    first, second = S[:half, :half], S[half:, half:]
    _invert(first)
    X = first @ S[:half, half:]
    second -= S[half:, :half] @ X
    _invert(second)
    across = X @ second
    first += across @ X.T
    S[:half, half:] = -across
    S[half:, :half] = -across.T
