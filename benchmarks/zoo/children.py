"""Calls in child processes: a crash, a hang or a full memory there costs one line here."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_MEMORY = 12 << 30


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        value: what it returned; None where it failed.
        error: why it failed; "" where it did not.
        seconds: wall time.
        peak: peak resident memory of the child, in bytes, 0 if it died.
    """

    value: Any
    error: str
    seconds: float
    peak: int = 0


class Children:
    """Starts children from a server that has imported what they need."""

    def __init__(self, preload: Sequence[str]) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def call(self, function: Callable[..., Any], args: Sequence[Any], limit: float) -> Outcome:
        """Run it, for at most `limit` seconds."""
        receive, send = self.context.Pipe(duplex=False)
        child = self.context.Process(target=_run, args=(send, function, args))
        start = time.perf_counter()
        child.start()
        send.close()
        try:
            if receive.poll(limit):
                value, error, peak = receive.recv()
                return Outcome(value, error, time.perf_counter() - start, peak)
            return Outcome(None, f"time: more than {limit:g} s", time.perf_counter() - start)
        except EOFError:
            child.join()
            reason = f"crash: exit code {child.exitcode}"
            return Outcome(None, reason, time.perf_counter() - start)
        finally:
            if child.is_alive():
                child.join(2)
            if child.is_alive():
                child.kill()
            child.join()
            child.close()
            receive.close()


def _run(send: Connection, function: Callable[..., Any], args: Sequence[Any]) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    sys.setrecursionlimit(20000)
    value, error = None, ""
    try:
        value = function(*args)
    except BaseException as e:
        error = _described(e)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    send.send((value, error, peak))
    send.close()


def _described(e: BaseException) -> str:
    last = traceback.extract_tb(e.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119
    text = " ".join(str(e).split())[:400]
    return f"{type(e).__name__} in {where}: {text}"
