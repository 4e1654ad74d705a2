"""All commands."""

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

__all__ = [
    "analyzing",
    "changing",
    "cli",
    "comparing",
    "compressing",
    "inspecting",
    "profiling",
    "quantizing",
    "tracing",
]
