from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.numerics.row_blocks import all_finite, row_blocks


@pytest.mark.parametrize("M", [0, 1, 7, 100])
@pytest.mark.parametrize("K", [0, 1, 9, 1000])
@pytest.mark.parametrize("numbers", [1, 64, 5000])
def test_every_row_once_and_in_order(M, K, numbers):
    blocks = list(row_blocks(M, K, numbers))
    assert [m for rows in blocks for m in range(M)[rows]] == list(range(M))
    assert all(rows.stop - rows.start > 0 for rows in blocks)
    assert all(
        rows.stop - rows.start == 1 or (rows.stop - rows.start) * K <= numbers or K == 0
        for rows in blocks
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (2, 599_999)])
def test_what_is_not_finite_is_found_in_any_block(bad, at):
    W = np.zeros((3, 600_000), np.float32)
    assert all_finite(W)
    W[at] = bad
    assert not all_finite(W)
