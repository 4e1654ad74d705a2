"""The command line: `commands` has a command a verb, this is where they meet.

`cli_options` has the options, `cli_output` prints and exits.
"""

from __future__ import annotations

from onnx_esn.commands import (
    analyzing,
    changing,
    comparing,
    compressing,
    inspecting,
    profiling,
    quantizing,
    tracing,
)
from onnx_esn.commands.base import cli

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


def main() -> None:
    """Entry point."""
    cli(prog_name="onnx-esn")
