"""The same work on many parts at once, in threads: numpy lets go of the interpreter's lock.

Each part has its own result, so that what comes out does not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_MOST = 4


def thread_count() -> int:
    """Threads to use: the processors at hand, at most four; `OMP_NUM_THREADS` may say fewer."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, _MOST, int(said) if said.isdecimal() else _MOST))


def each(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """The result of each part, in order; what one raises is raised here."""
    threads = min(thread_count(), len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="onnx-esn-numerics")
    try:
        return list(pool.map(work, parts))
    finally:
        pool.shutdown(cancel_futures=True)
