"""A large layer a few filters at a time: whole, and in float64, it takes twice what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[Any]  # of a float type

_NUMBERS = 1 << 20


def row_blocks(M: int, K: int, numbers: int = _NUMBERS) -> Iterator[slice]:
    """The rows of a matrix (M, K), in order, in blocks of about so many numbers (8 MB as float64).

    A row is never divided, and no block is empty.
    """
    size = max(1, numbers // max(K, 1))
    return (slice(first, min(first + size, M)) for first in range(0, M, size))


def all_finite(W: Reals) -> bool:
    """Whether a matrix (M, K) holds neither NaN nor infinities."""
    return all(bool(np.isfinite(W[rows]).all()) for rows in row_blocks(*W.shape))
