"""What training did to the weights: the effective signal norm, epoch by epoch."""

from __future__ import annotations

from onnx_esn.evaluation.trajectory.result import Trace as Trace
from onnx_esn.evaluation.trajectory.trace import trace as trace

__all__ = ["Trace", "trace"]
