"""Command lines on hostile files: run them within limits, and judge how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEGABYTES = 60.0, 3072
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: exit code; below 0: the signal that ended it.
        said: what it printed on both streams.
        seconds: wall-clock time.
        kilobytes: most memory that it held at a time.
    """

    code: int
    said: str
    seconds: float
    kilobytes: int

    @property
    def errors(self) -> list[str]:
        """Lines that say what is wrong."""
        return [x for x in self.said.splitlines() if x.startswith(("error:", "Error:"))]

    @property
    def fault(self) -> str:
        """What a careful team would file as a bug; "" where there is nothing to complain of."""
        if self.code < 0:
            return f"ended by signal {-self.code}"
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if "Traceback" in self.said or "internal error" in self.said:
            return "internal error"
        if "out of memory" in self.said:
            return "out of memory"
        if self.code and len(self.errors) != 1:
            return f"{len(self.errors)} error lines"
        if self.code and len(self.errors[0]) > 1500:
            return "an error line without end"
        if not self.code and self.errors:
            return "an error and exit code 0"
        return ""


class Runner:
    """Runs commands in forks of one worker; use as a context manager."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def __enter__(self) -> Runner:
        self._worker = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.hostile.worker", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.communicate()

    def __call__(
        self,
        *args: object,
        results: Sequence[Path] = (),
        seconds: float = SECONDS,
        megabytes: int = MEGABYTES,
    ) -> Ending:
        """Run one command.

        Args:
            args: the command line.
            results: models that it may write; they have to pass the checker.
            seconds: time it may take before it is ended.
            megabytes: address space it may take beyond what Python with all imports has.
        """
        job = {
            "args": [str(a) for a in args],
            "results": [str(r) for r in results],
            "seconds": seconds,
            "megabytes": megabytes,
        }
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(job) + "\n")
        self._worker.stdin.flush()
        return Ending(**json.loads(self._worker.stdout.readline()))
