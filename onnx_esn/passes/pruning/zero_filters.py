"""Remove channels that all-zero filters make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.graph.channels.groups import Analysis, analyse
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.pruning.absorption import fold_constants, varying_labels
from onnx_esn.passes.pruning.consistent_rewriting import rewrite_or_lock
from onnx_esn.passes.pruning.result import pruning_result
from onnx_esn.passes.pruning.scores import class_scores
from onnx_esn.passes.pruning.selection import Selector

_NOT_CONSTANT = "its filters are all zero, but what becomes of them depends on the data"


@dataclass(frozen=True)
class RemoveZeroFilters:
    """Remove channels that only all-zero filters make; their constants go to the consumers.

    Lossless where no zero padding meets such a constant; where it does, it is reported.
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Remove them."""
        start = analyse(model, shapes=self.input_shapes)
        if not _zero_classes(start).any():  # locks only take from them
            return PassResult(model, False)
        locks = [(labels, _NOT_CONSTANT) for labels in varying_labels(start)]
        found = rewrite_or_lock(start, locks, _zero_classes)
        analysis, removed, rewritten = found
        if not removed.any():
            return PassResult(model, False)
        folded, notes = fold_constants(analysis, removed, "constant")
        return pruning_result(analysis, removed, rewritten, folded, notes)


def _zero_classes(analysis: Analysis) -> Mask:
    score, filters = class_scores(analysis, "l1-norm", ranking=False)
    score = np.where(score == 0, 0.0, np.inf)
    return Selector(analysis, score, filters, "global", 1).by_ratio(1.0)
