"""The command line: `commands` has a command a verb, this is where they meet.

`options` has the options, `output` prints and exits.
"""

from __future__ import annotations

import os

from onnx_esn.cli.commands import (
    analyzing,
    changing,
    comparing,
    compressing,
    inspecting,
    profiling,
    quantizing,
    tracing,
)
from onnx_esn.cli.commands.base import cli
from onnx_esn.cli.signals import end_on_signals, leave

__all__ = [
    "analyzing",
    "changing",
    "cli",
    "comparing",
    "compressing",
    "inspecting",
    "main",
    "profiling",
    "quantizing",
    "tracing",
]


# What the builds of numpy and scipy read when they are imported.
_BLAS = ("OPENBLAS", "MKL", "BLIS", "OMP")


def _fix_threads() -> None:
    """One thread for linear algebra: how many there are would show in the last digits of sums.

    onnxruntime's threads are another matter (`--threads`), and change nothing.
    """
    wanted = os.environ.get("ONNX_ESN_BLAS_THREADS", "1")
    for name in _BLAS:
        os.environ[f"{name}_NUM_THREADS"] = wanted


def main() -> None:
    """Entry point."""
    end_on_signals()
    _fix_threads()
    try:
        cli(prog_name="onnx-esn")
    finally:
        leave()
