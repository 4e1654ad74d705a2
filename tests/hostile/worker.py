"""A process that runs command lines one by one, each in a fork of its own, within limits.

It imports everything once; a fork costs milliseconds. A command that crashes, hangs or takes all
memory ends its fork and nothing else. Lines of JSON come in and go out, see `tests.hostile.runs`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import onnx
import onnxruntime

from onnx_esn import evaluation, pipeline, verbs
from onnx_esn.cli import cli
from onnx_esn.evaluation import analysis, difference, trajectory
from onnx_esn.passes import profiling
from onnx_esn.passes.inspecting import inspection
from onnx_esn.report import pareto_plot, tables
from onnx_esn.search import sweep

LOADED = (evaluation, pipeline, verbs, analysis, difference, trajectory, inspection, profiling,
          tables, sweep, pareto_plot, onnxruntime)  # fmt: skip
INVALID_RESULT = 99  # exit code: the command said that all is well, and wrote an invalid model


def virtual_memory() -> int:
    """Bytes of address space that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def execute(job: dict) -> int:
    """Run a command in this process, and return its exit code."""
    try:
        cli(job["args"], prog_name="onnx-esn")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code == 0:
            for result in job["results"]:
                if Path(result).exists():
                    onnx.checker.check_model(result)
        return code
    return 0


def run(job: dict, sink: int) -> None:
    """The fork: never returns."""
    code = INVALID_RESULT
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        most = virtual_memory() + job["megabytes"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])  # nobody handles it: the fork ends
        code = execute(job)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(job: dict, scratch: Path) -> dict:
    """Run a job in a fork: how it ended."""
    with (scratch / "said").open("w+b") as said:
        start = time.monotonic()
        fork = os.fork()
        if not fork:
            run(job, said.fileno())
        _, status, usage = os.wait4(fork, 0)
        said.seek(0)
        text = said.read(1 << 16).decode(errors="replace")
    return {
        "code": os.waitstatus_to_exitcode(status),
        "said": text,
        "seconds": time.monotonic() - start,
        "kilobytes": usage.ru_maxrss,
    }


def main() -> None:
    """Take jobs until there are no more."""
    scratch = Path(sys.argv[1])
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line), scratch)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
