"""Sequential rounding that keeps several beginnings: the M-algorithm.

Rounding weight after weight to the nearest code, each decided once for all (`compensation`, 1),
spends the error of each only on those that come later. With UᵀU = H⁻¹ that error is

    (w − ŵ)ᵀ H (w − ŵ) = Δ² Σ_i (v_i − c_i)² / U_ii²,

v_i what weight i has become by then, in units of Δ: a sum along a path through a tree of codes. The
nearest code is the cheapest step, but not always the beginning of the cheapest path. So the M paths
of least error so far survive; each branches into the two nearest codes of the next weight.

Sources: Anderson & Mohan (1984), "Sequential coding algorithms: a survey and cost analysis"; Guo &
Nilsson (2006), "Algorithm and implementation of the K-best sphere decoding for MIMO detection".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.quantizers import Quantizer

_BLOCK = 32  # weights between two products with matrices

Array = npt.NDArray[Any]


def surviving_codes(
    V: Array, unit: Array, weight: Array, top: Array, survivors: int, quantizer: Quantizer
) -> Array:
    """Return codes (G, k, d) of the best path among those that survived.

    Args:
        V: filters (G, k, d) in units of their steps, in the order in which they are rounded.
        unit: U (G, d, d), each row divided by its diagonal.
        weight: 1 / U_ii² (G, d), in any unit.
        top: the largest code of each filter, (G, k).
        survivors: M ≥ 1, paths that are kept; 1 is rounding to the nearest.
        quantizer: the grid.
    """
    G, k, d = V.shape
    # Paths last: (d, G, k, m), m of them so far.
    rest = np.ascontiguousarray(V.transpose(2, 0, 1), np.float32)[..., None]
    unit, weight = unit.transpose(1, 2, 0), weight.T.astype(np.float32)
    limit = np.asarray(top, np.float32)[..., None]
    row = np.arange(G * k).reshape(G, k, 1)
    cost = np.zeros((G, k, 1), np.float32)
    codes: list[Array] = []
    parents: list[Array] = []
    for s in range(0, d, _BLOCK):
        e = min(s + _BLOCK, d)
        block, rest = rest[: e - s], rest[e - s :]
        errors: list[Array] = []
        for i in range(s, e):
            v, block = block[0], block[1:]
            parent, code, error, cost = _branch(
                v, cost, weight[i, :, None, None], limit, row, survivors, quantizer
            )
            block = _taken(block, row * v.shape[2] + parent)
            block -= unit[i, i + 1 : e, :, None, None] * error
            parents.append(parent)
            codes.append(code)
            errors.append(error)
        if e < d:
            every = np.broadcast_to(np.arange(cost.shape[2]), cost.shape)
            E, origin = _traced(errors, parents[s:], every, row)
            U = unit[s:e, e:].transpose(2, 1, 0)
            change = U @ E.transpose(1, 0, 2, 3).reshape(G, e - s, -1)
            rest = _taken(rest, row * rest.shape[-1] + origin)
            rest -= change.transpose(1, 0, 2).reshape(rest.shape)
    best = cost.argmin(axis=2)[..., None]
    found, _ = _traced(codes, parents, best, row)
    return np.asarray(found[..., 0].transpose(1, 2, 0))


def _branch(
    v: Array,
    cost: Array,
    weight: Array,
    limit: Array,
    row: Array,
    survivors: int,
    quantizer: Quantizer,
) -> tuple[Array, Array, Array, Array]:
    """What survives of the paths (G, k, m) when each goes on with the two codes nearest to v.

    Args:
        v: what the weight has become on each path.
        cost: of the paths so far.
        weight: what an error of this weight counts (G, 1, 1).
        limit: the largest code of each filter (G, k, 1).
        row: number of each filter (G, k, 1), counted through all groups.
        survivors: how many paths are kept.
        quantizer: the grid.

    Returns:
        for each survivor, the path it goes on from, its code, what that leaves of v, and its cost.
    """
    G, k, m = v.shape
    # Once with the nearest code, once with the one on the other side of v.
    found, error = np.empty((2, G, k, 2 * m), np.float32)
    near, other = found[..., :m], found[..., m:]
    near[...] = quantizer.round_codes(v, limit)
    left = np.subtract(v, near, out=error[..., :m])
    np.add(near, np.where(left >= 0, np.float32(1), np.float32(-1)), out=other)
    outside = np.abs(other) > limit
    if outside.any():
        other[...] = np.where(outside, 2 * near - other, other)
    np.subtract(v, other, out=error[..., m:])
    total = weight * error
    total *= error
    total[..., :m] += cost
    total[..., m:] += cost
    if not limit.all():  # a filter without bits has one code
        total[..., m:][np.abs(other) > limit] = np.inf
    if 2 * m > survivors:
        best = np.argpartition(total, survivors - 1, axis=2)[..., :survivors]
        at = row * (2 * m) + best
        return best % m, found.take(at), error.take(at), total.take(at)
    return np.broadcast_to(np.arange(2 * m) % m, total.shape), found, error, total


def _taken(values: Array, at: Array) -> Array:
    """Values (…, G, k, m), for each of the paths (G, k, n) at its index into (G, k, m)."""
    flat = values.reshape(*values.shape[:-3], math.prod(values.shape[-3:]))
    return np.asarray(flat.take(at, axis=-1))


def _traced(
    values: list[Array], parents: list[Array], paths: Array, row: Array
) -> tuple[Array, Array]:
    """Values (n, G, k, p) along the paths (G, k, p), from their ends, and where those began."""
    out = np.empty((len(values), *paths.shape), np.float32)
    for i in reversed(range(len(values))):
        at = row * values[i].shape[-1] + paths
        values[i].take(at, out=out[i])
        paths = parents[i].take(at)
    return out, paths
