"""What models cost and how well their outputs agree: figures side by side."""

from __future__ import annotations

from .comparison import Accuracy, Comparison, Evaluation, OutputAgreement
from .evaluate import evaluate

__all__ = ["Accuracy", "Comparison", "Evaluation", "OutputAgreement", "evaluate"]
