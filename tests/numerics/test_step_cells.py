"""Cells ruled out by bounds: the same steps as a sweep over the whole range."""

import numpy as np
import pytest

from onnx_esn.numerics import step_cells, step_search
from onnx_esn.numerics.step_size import MID_RISE, MID_TREAD, Levels, optimal_step, squared_error


def filters(kind: str, M: int, K: int) -> np.ndarray:
    rng = np.random.default_rng([M, K])
    drawn = {
        "normal": lambda: rng.normal(size=(M, K)),
        "laplace": lambda: rng.laplace(size=(M, K)),
        "sparse": lambda: rng.normal(size=(M, K)) * (rng.random((M, K)) < 0.02),
        "one loud": lambda: np.where(np.arange(K) == 3, 1e4, rng.normal(size=(M, K))),
        "few values": lambda: rng.integers(1, 4, (M, K)) * 0.37,
        "half zero": lambda: np.where(np.arange(K) < K // 2, 0.0, rng.normal(size=(M, K))),
    }
    return drawn[kind]()


KINDS = ["normal", "laplace", "sparse", "one loud", "few values", "half zero"]


@pytest.mark.parametrize("levels", [MID_RISE, MID_TREAD], ids=["rise", "tread"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_lose_nothing_to_the_whole_range(
    kind: str, bits: int, levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = filters(kind, 5, 600)
    found = optimal_step(W, bits, levels)
    monkeypatch.setattr(step_search, "_BOUNDED_RISES", 0)
    monkeypatch.setattr(step_search, "_EXACT_BREAKPOINTS", 1 << 40)
    np.testing.assert_array_equal(found, optimal_step(W, bits, levels))


def test_where_too_much_is_left_the_range_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    W = filters("normal", 3, 600)
    found = optimal_step(W, 4)
    monkeypatch.setattr(step_cells, "_CROWDED", 0)
    np.testing.assert_array_equal(found, optimal_step(W, 4))


def test_a_crowded_filter_changes_nothing_for_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone each is swept; the cells of all three are too many."""
    W = np.concatenate([filters("normal", 2, 2000), filters("few values", 1, 2000)])
    monkeypatch.setattr(step_cells, "_CROWDED", 12_000)
    monkeypatch.delattr(step_search, "neighbourhoods")  # the less exact way
    alone = np.concatenate([optimal_step(W[i : i + 1], 5) for i in range(3)])
    np.testing.assert_array_equal(optimal_step(W, 5), alone)


def test_a_table_has_p_and_q_of_the_nearest_codes() -> None:
    A = np.abs(filters("normal", 4, 300))
    A /= 1.001 * A.max(axis=1, keepdims=True)
    for levels, rises in ((MID_RISE, 7), (MID_TREAD, 7)):
        table = step_cells.Thresholds(step_cells.Table(A, 512), rises, levels.lowest)
        curve = table.curve(40, 60, 5)
        np.testing.assert_allclose(curve.delta, np.arange(40, 61, 5) * table.unit)
        for i, delta in enumerate(curve.delta):
            error = squared_error(A, np.full(4, delta), 4, levels)
            np.testing.assert_allclose(curve.f[:, i], error, rtol=1e-9)


def test_few_of_the_cells_are_swept() -> None:
    """What the time is saved by: of 1,024 cells about ten of each filter are left."""
    A = np.abs(filters("normal", 8, 1024))
    A /= 1.001 * A.max(axis=1, keepdims=True)
    swept = []
    original = step_cells._swept

    def counted(table, curve, start, row, cell, tie):
        swept.append(row.size)
        return original(table, curve, start, row, cell, tie)

    step_cells._swept = counted
    try:
        optimal_step(A, 4)
    finally:
        step_cells._swept = original
    assert sum(swept) < 8 * 16
