"""Time models against each other so that the machine's noise hits them all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .session import Session


@dataclass(frozen=True)
class Latency:
    """Wall time of one run in milliseconds, and its ratio to the first model's.

    ``ratio`` is the median over rounds of the ratio within a round, which slow drifts of the
    clock frequency leave alone.
    """

    median_ms: float
    p10: float
    p90: float
    ratio: float


def median_latency(
    models: Sequence[Session],
    feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    min_seconds: float = 0.5,
) -> list[Latency]:
    """Time each model on its own feeds, one run each a round, every other round backwards.

    Args:
        models: sessions; give them the same number of threads.
        feeds: one batch for each model.
        rounds: at least this many rounds are timed.
        warmup: runs of each model before that, not timed.
        min_seconds: rounds go on until this much time has passed.

    Raises:
        InferenceError: a model cannot be run.
        ValueError: no model, no rounds, or not one batch for each model.
    """
    if not models or len(models) != len(feeds) or rounds < 1:
        raise ValueError("give at least one model, one batch of feeds for each, and one round")
    for _ in range(warmup):
        for model, feed in zip(models, feeds, strict=True):
            model.run(feed)
    times: list[list[float]] = []
    order = list(range(len(models)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        while len(times) < rounds or time.perf_counter() - began < min_seconds:
            row = [0.0] * len(models)
            for index in order:
                start = time.perf_counter_ns()
                models[index].run(feeds[index])
                row[index] = (time.perf_counter_ns() - start) / 1e6
            times.append(row)
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    table = np.asarray(times)
    ratios = np.median(table / table[:, :1], axis=0)
    low, middle, high = np.percentile(table, [10, 50, 90], axis=0)
    return [
        Latency(float(middle[i]), float(low[i]), float(high[i]), float(ratios[i]))
        for i in range(len(models))
    ]
