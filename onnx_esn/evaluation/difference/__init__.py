"""What differs between two models: nodes, tensors, layers, settings, and signals on images."""

from __future__ import annotations

from .compare import compare
from .result import Difference, check_limit

__all__ = ["Difference", "check_limit", "compare"]
