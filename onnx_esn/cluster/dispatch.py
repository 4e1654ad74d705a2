"""Hand out work, one item at a time to each worker, and survive those that die.

Which worker gets what is decided here and not by Dask: a worker is a process that may use all cores
of its machine, whatever number of threads Dask counts for it; and what a worker that died was at is
simply handed out again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_esn.errors import OperationError

from . import held
from .held import Function
from .payload import Payload
from .versions import differences, processor, versions

log = logging.getLogger(__name__)

# How often an item may take a worker down with it, and seconds to wait for a worker.
DEATHS, PATIENCE = 3, 30.0
_TICK = 0.5  # seconds between two looks at who is there


@dataclass(frozen=True)
class Died:
    """In place of a result: each worker that an item was handed to died of it."""

    workers: tuple[str, ...]


@dataclass
class _Worker:
    address: str
    last: Hashable = None  # kind of the item it had last


@dataclass
class Cluster:
    """The workers of a scheduler.

    Attributes:
        client: a `distributed.Client`.
        patience: seconds to wait where there is no worker (any more).
    """

    client: Any
    patience: float = PATIENCE
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _done: threading.Event = field(default_factory=threading.Event)

    def run(
        self,
        function: Function,
        items: Sequence[Any],
        payloads: Mapping[str, Payload],
        kinds: Sequence[Hashable] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Number and result of each item as soon as it is there, or `Died`.

        Args:
            function: called on a worker as ``function(held, item)``; found by its name there.
            items: what to work on.
            payloads: what the function gets as `held`, by name.
            kinds: where given, a worker prefers an item of the kind that it had last.

        Raises:
            OperationError: there are no workers, none that gives the same bytes, or the scheduler
                is gone.
            Exception: what the function raises.
        """
        keys = {name: payload.key for name, payload in payloads.items()}
        kinds = [None] * len(items) if kinds is None else kinds
        queue = deque(range(len(items)))
        deaths: list[list[str]] = [[] for _ in items]
        running: dict[str, tuple[Any, int]] = {}
        try:
            while queue or running:
                there = self._look(waiting=not running)
                for address in [address for address in running if address not in there]:
                    future, i = running.pop(address)
                    future.cancel()
                    deaths[i].append(address)
                    if len(deaths[i]) >= DEATHS:
                        yield i, Died(tuple(deaths[i]))
                    else:
                        log.warning("worker %s died; what it was at goes to another one", address)
                        queue.appendleft(i)
                for address in [a for a in there if a not in running]:
                    if queue and self._provide(address, payloads.values()):
                        i = _next(queue, kinds, self._workers[address], self._workers.values())
                        running[address] = (
                            self._call(address, held.call, function, keys, items[i]),
                            i,
                        )
                for address, future, i in self._finished(running):
                    result = future.result()
                    del running[address]
                    if isinstance(result, held.Missing):
                        queue.appendleft(i)
                    else:
                        yield i, result
        except OperationError:
            raise
        except Exception as error:
            self._explain(error)
            raise
        finally:
            for future, _ in running.values():
                future.cancel()

    def _look(self, *, waiting: bool) -> list[str]:
        """Addresses of the workers that may be used.

        Raises:
            OperationError: there is none, though it was waited for.
        """
        end = time.monotonic() + self.patience
        while True:
            there = list(self.client.nthreads())
            for address in [a for a in self._workers if a not in there]:
                del self._workers[address]
            for address in there:
                if address not in self._workers and address not in self._refused:
                    self._greet(address)
            if self._workers or not waiting:
                return list(self._workers)
            if self._refused and set(there) <= set(self._refused):
                first = next(iter(self._refused))
                raise OperationError(
                    f"worker {first} would not give the same bytes: {self._refused[first]}; "
                    "install the same versions there"
                )
            if time.monotonic() > end:
                at = self.client.scheduler.address
                raise OperationError(
                    f"the scheduler at {at} has no workers, waited {self.patience:g} s for one: "
                    f"start some with 'dask worker {at}'"
                )
            time.sleep(_TICK)

    def _greet(self, address: str) -> None:
        """Take a worker in, or refuse it."""
        future = self._call(address, _describe)
        try:
            theirs, chip = future.result(timeout=60)
        except ModuleNotFoundError as error:
            self._refuse(address, f"it has no module {error.name!r}")
        except Exception as error:  # gone again, or it cannot read what it was sent
            if address in self.client.nthreads():
                self._refuse(address, f"it does not answer ({type(error).__name__}: {error})")
        else:
            if wrong := differences(versions(), theirs):
                self._refuse(address, wrong)
                return
            self._workers[address] = _Worker(address)
            if chip != processor():
                log.warning(
                    "worker %s has another processor (%s, here %s): results may differ from those "
                    "computed here in their last digits", address, chip, processor()
                )  # fmt: skip

    def _refuse(self, address: str, why: str) -> None:
        self._refused[address] = why
        if self._workers:
            log.warning("worker %s is left out, it would not give the same bytes: %s", address, why)

    def _provide(self, address: str, payloads: Iterable[Payload]) -> bool:
        """See to it that a worker holds what it needs; False where it is gone meanwhile."""
        payloads = list(payloads)
        try:
            lacking = self._call(address, held.missing, [p.key for p in payloads]).result()
            for payload in payloads:
                if payload.key in lacking.keys:
                    self._bring(address, payload)
        except Exception:
            if address in self.client.nthreads():
                raise
            return False
        return True

    def _bring(self, address: str, payload: Payload) -> None:
        if payload.fetch is not None:
            why = self._call(address, held.reach, payload.key, payload.fetch).result()
            if not why:
                return
            log.info("worker %s cannot get %s by itself (%s): sent", address, payload.key, why)
        count = 0
        for count, part in enumerate(payload.parts(), 1):
            (there,) = self.client.scatter([part], workers=[address], hash=False)
            self._call(address, held.receive, payload.key, count - 1, there, payload.keep).result()
            del there  # the worker has taken what it keeps
        if not self._call(address, held.assemble, payload.key, count, payload.build).result():
            raise OperationError(f"worker {address} lost a part of what it was sent")

    def _call(self, address: str, function: Callable[..., Any], *args: Any) -> Any:
        """A future of a call on one worker."""
        key = f"onnx-esn-{id(self)}-{next(self._numbers)}-{time.time_ns()}"
        return self.client.submit(
            function, *args, key=key, workers=[address], allow_other_workers=False, pure=False
        )

    def _finished(self, running: Mapping[str, tuple[Any, int]]) -> list[tuple[str, Any, int]]:
        """Worker, future and item of those that are done, once one is, or after a while."""
        if running and not any(future.done() for future, _ in running.values()):
            self._done.clear()
            for future, _ in running.values():
                future.add_done_callback(lambda _: self._done.set())
            self._done.wait(_TICK)
        alive = self.client.nthreads()
        return [(a, f, i) for a, (f, i) in running.items() if f.done() and a in alive]

    def _explain(self, error: Exception) -> None:
        """Raise what a lost scheduler is, in words."""
        if self.client.status not in ("running",) or isinstance(error, OSError):
            raise OperationError(
                "the connection to the scheduler was lost; run again to go on"
            ) from error


def _next(
    queue: deque[int], kinds: Sequence[Hashable], worker: _Worker, workers: Iterable[_Worker]
) -> int:
    """The item that a worker gets: of the kind it had last, else of one that no other one has."""
    taken = {other.last for other in workers if other is not worker}
    alike = [i for i in queue if kinds[i] == worker.last]
    free = [i for i in queue if kinds[i] not in taken]
    chosen = (alike or free or queue)[0]
    queue.remove(chosen)
    worker.last = kinds[chosen]
    return chosen


def _describe() -> tuple[Mapping[str, str], str]:
    return versions(), processor()
