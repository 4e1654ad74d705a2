"""Prepare the next item while the caller works on this one."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items, each computed in a background thread one step ahead.

    An exception of ``items`` is raised here, in its turn. Closing this generator stops the thread
    after the item it is at.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="onnx-esn-prefetch") as pool:

        def step() -> list[Item]:
            # A StopIteration cannot travel through a future; an empty list can.
            return list(islice(source, 1))

        future = pool.submit(step)
        while ready := future.result():
            future = pool.submit(step)
            yield ready[0]
            del ready  # let go of this batch before the next one is waited for
