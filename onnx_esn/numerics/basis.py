"""A basis for the channels of a linear tensor in which few bits do the least harm.

A tensor x of c channels between linear operators can be written as Mx, with MV in the place of the
weights V that make it and WM⁻¹ of those W that read it. With one step for each filter, rounding
moves row r of MV by about ‖(MV)_r‖, and what reads it passes that on in the measure of column r of
WM⁻¹, so that the harm is

    Σ_r (M P Mᵀ)_rr (M⁻ᵀ C M⁻¹)_rr,   P = V Vᵀ,  C = Wᵀ W.

Where M makes both alike (M P Mᵀ = M⁻ᵀ C M⁻¹, of eigenvalues σ: the *balanced* basis of systems
theory) and then turns them so that all their diagonal is mean(σ), it is (Σσ)²/c. That is the least
that any M reaches: the harm is at least (Σ_r (M P Mᵀ)_rr^½ (M⁻ᵀ C M⁻¹)_rr^½)²/c, and by Cauchy and
Schwarz that sum is no less than the nuclear norm Σσ of P^½ C^½. A turn at random comes close to
such a diagonal, and makes the entries of a row about normal, which suits the grid; c − 1 turns of
two channels each make it so.

Sources: Moore (1981) for balancing; Chan and Li (1983) for the diagonal; Chee et al. (2023),
"QuIP", and Ashkboos et al. (2024), "QuaRot", for turning weights before quantization. That balanced
and levelled are least together is ours.
"""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.midrise import Floats

# Of the mean eigenvalue, added to P and to C: what they hardly know is not scaled far.
EVEN = 0.05


def balanced_basis(P: Floats, C: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """M and M⁻¹ (c, c), balanced and levelled.

    Args:
        P: V Vᵀ (c, c) of the weights that make the channels.
        C: Wᵀ W (c, c) of those that read them.
        rng: draws the turn.
    """
    p, q = _root(_evened(P))
    # S = MᵀM solves S P S = C.
    S = q @ _root(p @ _evened(C) @ p)[0] @ q
    m, inverse = _root((S + S.T) / 2)
    turn = _levelled(m @ _evened(P) @ m, random_rotation(len(P), rng))
    return turn @ m, inverse @ turn.T


def random_rotation(c: int, rng: np.random.Generator) -> Floats:
    """An orthogonal matrix (c, c), all alike probable (Haar)."""
    Q, R = np.linalg.qr(rng.standard_normal((c, c)))
    rotation: Floats = Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return rotation


def _levelled(A: Floats, turn: Floats) -> Floats:
    """The rotation `turn`, changed so that all of the diagonal of turn A turnᵀ is its mean."""
    A, turn = turn @ A @ turn.T, turn.copy()
    mean = float(np.trace(A)) / len(A)
    left = np.arange(len(A))
    while left.size > 1:
        diagonal = np.diagonal(A)[left]
        i, j = left[diagonal.argmin()], left[diagonal.argmax()]
        # (a_ii + 2t·a_ij + t²·a_jj)/(1 + t²) = mean, for the lesser t; a_ii ≤ mean ≤ a_jj.
        low, high, cross = A[i, i] - mean, A[j, j] - mean, A[i, j]
        if not low < 0 < high:
            break
        root = np.sqrt(cross * cross - low * high)
        t = -low / (cross + root) if cross >= 0 else -low / (cross - root)
        pair = np.array([[1.0, t], [-t, 1.0]]) / np.sqrt(1.0 + t * t)
        both = [i, j]
        A[both] = pair @ A[both]
        A[:, both] = A[:, both] @ pair.T
        turn[both] = pair @ turn[both]
        left = left[left != i]
    return turn


def _evened(A: Floats) -> Floats:
    c = len(A)
    mean = float(np.trace(A)) / c
    # The identity of nothing: channels that nobody makes or reads may be anything.
    return A + (EVEN * mean if mean > 0 else 1.0) * np.eye(c)


def _root(A: Floats) -> tuple[Floats, Floats]:
    """A^½ and A^−½ of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(A)
    root = np.sqrt(np.maximum(values, values[-1] * 1e-12))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
