"""Rewrite a graph without some channels, or find out which ones it cannot lose."""

from __future__ import annotations

import logging
from collections.abc import Callable

from onnx_esn.errors import VerificationError
from onnx_esn.graph.channels.groups import Analysis, analyse_again
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.rewrite.rewriting import RewriteError, Rewritten, rewrite
from onnx_esn.passes.pruning.steering import Locks

log = logging.getLogger(__name__)

_TRIES = 200


def rewrite_or_lock(
    analysis: Analysis, locks: Locks, choose: Callable[[Analysis], Mask]
) -> tuple[Analysis, Mask, Rewritten]:
    """Choose classes and rewrite; where the graph cannot follow, lock those labels, choose again.

    Args:
        analysis: the labelled model.
        locks: labels to lock from the start.
        choose: per class, whether it goes, by the analysis with all locks.

    Returns:
        The analysis with all locks, per label whether it goes, and the rewritten model.
    """
    locks = list(locks)
    for _ in range(_TRIES):
        analysis = analyse_again(analysis, locks) if locks else analysis
        removed = analysis.removed_labels(choose(analysis))
        try:
            return analysis, removed, rewrite(analysis, removed)
        except RewriteError as error:
            log.info("locked: %s", "; ".join(reason for _, reason in error.locks))
            locks += error.locks
    raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")
