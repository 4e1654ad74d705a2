"""One way to meet a budget, and which of several is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_esn.passes.base import PassResult
from onnx_esn.passes.correcting.output_divergence import Judged

# Standard errors by which images typically have to diverge less with pruning; where nothing tells,
# a mean divergence over n images is taken to be known to about 2/√n of itself.
ERRORS, DOUBT = 1.0, 2.0


@dataclass(frozen=True)
class Trial:
    """One way to meet the budget.

    Attributes:
        prune_scale: what a channel's loss counted against a bit's; infinite: no pruning.
        pruning: the pruning, or None where nothing goes.
        quantization: the quantization of what is left.
        cost: ESN'_d in MAC·bit.
        divergence: of the outputs on images that were held out, or None.
        kept: whether the result was made this way.
    """

    prune_scale: float
    pruning: PassResult | None
    quantization: PassResult
    cost: float
    divergence: float | None = None
    kept: bool = False

    def to_document(self) -> dict[str, Any]:
        """Figures for a report."""
        return {
            "prune_scale": self.prune_scale if math.isfinite(self.prune_scale) else None,
            "macs": None if self.pruning is None else self.pruning.details["macs_after"],
            "cost": self.cost,
            "divergence": self.divergence,
            "kept": self.kept,
        }


def best_of(trials: Sequence[Trial], judged: Sequence[Judged], images: int) -> int:
    """The trial of least divergence; one that prunes must be better by more than the doubt."""
    best = int(np.argmin([j.value for j in judged]))
    whole = next((i for i, t in enumerate(trials) if t.pruning is None), None)
    if trials[best].pruning is None or whole is None:
        return best
    errors = judged[best].less_than(judged[whole])
    if errors is not None:
        return best if errors > ERRORS else whole
    sure = judged[best].value * (1.0 + DOUBT / math.sqrt(images)) < judged[whole].value
    return best if sure else whole
