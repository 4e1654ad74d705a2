"""Remove what changes nothing: dead, constant, unread and duplicate channels.

No images are needed and nothing is lost, up to rounding. See `exact_walk` for how equal and
constant channels are found, `exact_choice` for when one can go.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.errors import VerificationError
from onnx_esn.graph.channel_groups import Analysis, analyse, analyse_again
from onnx_esn.graph.channel_labels import Labels, Mask
from onnx_esn.graph.rewriting import RewriteError, rewrite
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.exact_choice import KINDS, Choice, choose_redundant
from onnx_esn.passes.exact_merge import merge_channels
from onnx_esn.passes.exact_readers import Reader, Reading, find_readers
from onnx_esn.passes.exact_rules import RULES
from onnx_esn.passes.exact_values import Values
from onnx_esn.passes.exact_walk import number_values
from onnx_esn.passes.pruning_result import pruning_result
from onnx_esn.plans import FoldedConstant, MergedChannels, PruningPlan

log = logging.getLogger(__name__)
_TRIES = 200


@dataclass(frozen=True)
class RemoveRedundant:
    """Remove channels that the outputs do not depend on.

    A channel goes where every layer that reads it can do without: its weights there are zero, it
    holds a constant that the layer's bias can hold at every position, or another channel of the
    layer always holds the same values, so that the weights can be added up.

    Attributes:
        input_shapes: sizes of dynamic axes other than the batch, by input name.
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Remove them; `details` counts the filters that were dead, unread and duplicate."""
        start = analyse(model, shapes=self.input_shapes)
        walk = number_values(start, RULES)
        reading = find_readers(walk)
        locks: list[tuple[Labels, str]] = []
        for _ in range(_TRIES):
            analysis = analyse_again(start, locks) if locks else start
            choice = choose_redundant(analysis, reading, walk.values)
            removed = analysis.removed_labels(choice.removed)
            merged, folded = take_over(reading, walk.values, removed)
            try:
                return self._rewritten(analysis, locks, choice, removed, merged, folded)
            except RewriteError as error:
                log.info("locked: %s", error.reason)
                locks.append((error.labels, error.reason))
        raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")

    def _rewritten(
        self,
        analysis: Analysis,
        locks: list[tuple[Labels, str]],
        choice: Choice,
        removed: Mask,
        merged: tuple[MergedChannels, ...],
        folded: tuple[FoldedConstant, ...],
    ) -> PassResult:
        counts = _counts(analysis, choice)
        if merged:
            model = merge_channels(analysis.source, merged)
            after = analyse(model, shapes=self.input_shapes, locks=locks)
        else:
            after = analysis
        result = pruning_result(after, removed, rewrite(after, removed), folded, ())
        assert isinstance(result.plan, PruningPlan)
        return dataclasses.replace(
            result,
            skipped=choice.notes,
            plan=dataclasses.replace(result.plan, merged=merged),
            details={**result.details, **counts},
        )


def _counts(analysis: Analysis, choice: Choice) -> dict[str, int]:
    """Filters that went, by kind."""
    counts = np.zeros(len(KINDS), np.int64)
    first = analysis.first_labels
    for layer in analysis.layers:
        if layer.index in first:
            start = first[layer.index]
            kinds = choice.kind[analysis.classes.of[start : start + layer.filters]]
            counts += np.bincount(kinds[kinds >= 0], minlength=len(KINDS))
    return {f"filters_{kind}": int(n) for kind, n in zip(KINDS, counts, strict=True)}


def take_over(
    reading: Reading, values: Values, removed: Mask
) -> tuple[tuple[MergedChannels, ...], tuple[FoldedConstant, ...]]:
    """What the layers that stay do for the channels that go.

    Args:
        reading: everything that reads channels.
        values: what they hold.
        removed: per label, whether it goes.

    Returns:
        Input channels whose weights are added up, and constants for the biases.
    """
    merged, folded = [], []
    for r in reading.readers:
        gone, kept = removed[r.labels], ~removed[r.filters]
        if not gone.any() or not kept.any():
            continue
        constants = values.constants(r.cells)
        unread, still = r.free_cells(constants, kept)
        spare = r.slots(unread | still)
        into, added = _partners(r, gone, gone & ~spare)
        if into:
            merged.append(MergedChannels(r.layer.name, r.axis, into, added))
        slots = gone & spare
        cells = np.broadcast_to(slots, r.cells.shape) if r.shared else slots.reshape(r.cells.shape)
        value = np.where(cells & still, constants, 0.0)
        groups = len(value)
        by_group = r.weights.reshape(groups, -1, r.weights.shape[1])
        delta = np.einsum("gmc,gc->gm", by_group, value).reshape(-1)[kept]
        if delta.any():
            folded.append(FoldedConstant(r.layer.name, tuple(float(v) for v in delta)))
    return tuple(merged), tuple(folded)


def _partners(r: Reader, gone: Mask, need: Mask) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each slot in need of one, the first slot that stays and reads the same."""
    if not need.any():
        return (), ()
    keys = r.keys()
    partner = {int(keys[i]): int(i) for i in np.flatnonzero(~gone)[::-1]}
    added = [int(i) for i in np.flatnonzero(need)]
    return tuple(partner[int(keys[i])] for i in added), tuple(added)


__all__ = ["RemoveRedundant", "Skipped", "take_over"]
