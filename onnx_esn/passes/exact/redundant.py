"""Remove what changes nothing: dead, constant, unread and duplicate channels.

No images are needed and nothing is lost, up to rounding. In the order in which they are used:

- `walk` runs the graph on numbers, one for each thing that channels can hold;
- `values` gives them out, and knows the range of what is behind each;
- `rules` says which rule an operator has: `rules_layers`, `…_elementwise`, `…_channelwise`,
  `…_movement`, `…_spatial`; `ranges` does their arithmetic on ranges;
- `readers` lists the layers that read channels (`layers.reads` looks up how);
- `slots` knows which readers can do without a channel, `choice` chooses what goes;
- `takeover` works out what the readers do instead; `merge` adds up weights.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.errors import VerificationError
from onnx_esn.graph.channels.groups import Analysis, analyse, analyse_again
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.rewrite.rewriting import RewriteError, rewrite
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.exact.choice import KINDS, Choice, choose_redundant
from onnx_esn.passes.exact.merge import merge_channels
from onnx_esn.passes.exact.readers import find_readers
from onnx_esn.passes.exact.rules import RULES
from onnx_esn.passes.exact.takeover import take_over
from onnx_esn.passes.exact.walk import number_values
from onnx_esn.passes.pruning.result import pruning_result
from onnx_esn.passes.pruning.steering import Locks, locked_layers
from onnx_esn.passes.pruning.widths import check_widths
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
        round_to, min_width, only, exclude: what stays all the same; see `Prune`.
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None
    round_to: int = 1
    min_width: int = 1
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        check_widths(self.round_to, self.min_width)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Remove them; `details` counts the filters that were dead, unread and duplicate.

        Raises:
            OptionError: a pattern matches no layer.
        """
        start = analyse(model, shapes=self.input_shapes)
        walk = number_values(start, RULES)
        reading = find_readers(walk)
        locks = locked_layers(start, self.only, self.exclude)
        widths = {"round_to": self.round_to, "min_width": self.min_width}
        for _ in range(_TRIES):
            analysis = analyse_again(start, locks) if locks else start
            single = analysis.apart or analysis  # fewer multiplications count, not copies
            choice = choose_redundant(single, reading, walk.values, **widths)
            removed = single.removed_labels(choice.removed)
            merged, folded = take_over(reading, walk.values, removed)
            try:
                return self._rewritten(analysis, locks, choice, removed, merged, folded)
            except RewriteError as error:
                log.info("locked: %s", "; ".join(reason for _, reason in error.locks))
                locks += error.locks
        raise VerificationError(f"no consistent way to prune this graph after {_TRIES} attempts")

    def _rewritten(
        self,
        analysis: Analysis,
        locks: Locks,
        choice: Choice,
        removed: Mask,
        merged: tuple[MergedChannels, ...],
        folded: tuple[FoldedConstant, ...],
    ) -> PassResult:
        counts = _counts(analysis.apart or analysis, choice)
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
