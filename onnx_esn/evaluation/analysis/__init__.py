"""Prune or quantize? The verb `analyze`, and what it finds."""

from __future__ import annotations

from .analyze import analyze
from .result import ModelAnalysis

__all__ = ["ModelAnalysis", "analyze"]
