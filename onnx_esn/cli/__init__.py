"""The command line: `commands` has a command a verb, `commands.all` is where they meet.

`options` has the options, `output` prints and exits. Signals are listened to before any of them
is imported.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_esn.cli.commands.all import cli as cli

__all__ = ["cli", "main"]

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
    import signal

    from onnx_esn.cli.signals import end_on_signals, leave, note

    try:
        end_on_signals()
        _fix_threads()
        from onnx_esn.cli.commands.all import cli

        cli(prog_name="onnx-esn")
    except KeyboardInterrupt:  # before anything listened
        note(signal.SIGINT)
    finally:
        leave()


def __getattr__(name: str) -> Any:
    if name == "cli":
        from onnx_esn.cli.commands.all import cli

        return cli
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
