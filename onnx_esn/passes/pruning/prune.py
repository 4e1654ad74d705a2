"""The pruning pass: score, choose, rewrite, absorb."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.pruning.absorption import fold_constants
from onnx_esn.passes.pruning.choosing import choose, means, measured
from onnx_esn.passes.pruning.consistent_rewriting import rewrite_or_lock
from onnx_esn.passes.pruning.options import PruneOptions
from onnx_esn.passes.pruning.replay import replay
from onnx_esn.passes.pruning.result import joined, pruning_result
from onnx_esn.passes.pruning.steering import group_ratios, locked_layers
from onnx_esn.passes.selection.options import QCQP, absolute
from onnx_esn.passes.selection.program import Selection
from onnx_esn.plans import PruningPlan, load_pruning


@dataclass(frozen=True)
class Prune(PruneOptions):
    """Remove filters and everything that was coupled to them.

    One of `ratio`, `target_macs` and `plan` says how much, or any of the targets with selection
    "qcqp"; `exact` alone removes only what costs nothing.

    Attributes:
        ratio: fraction of the prunable filters to remove, 0 ≤ ratio < 1.
        target_macs: MACs to reach from below: a number, "300M", or a percentage such as "50%".
        plan: a plan to replay, or `PruningRatios` to follow, or the path of either. `ratio` may
            stand beside ratios that have no default.
        criterion: what ranks the filters; a key of `scores.CRITERIA`, or "reconstruction":
            what the outputs lose once the readers are refitted (needs images).
        scope: "layer": the same share of every group; "global": all filters ranked together. None:
            "layer", but "global" for a target of MACs by reconstruction.
        round_to: widths of layers that lose filters become multiples of this.
        min_width: filters that every layer keeps; one that has fewer keeps all.
        only: patterns of layers (node or weight name, * and ?); if any, what matches none of them
            keeps all its filters, and so does what is tied to it.
        exclude: patterns of layers that keep all their filters.
        exact: first remove what costs nothing (see `RemoveRedundant`), within the same limits; a
            ratio then speaks of what is left, a target still of the input model.
        absorb: what removed channels still sent to their consumers: "none" drops it, "constant"
            takes over exactly constant channels, "mean" expected values.
        selection: "ranked": by criterion and scope; "qcqp": the channels that are worth most
            together within all targets, see `onnx_esn.passes.selection`.
        target_params, target_memory, target_latency, latency_model: further targets of selection
            "qcqp", see `onnx_esn.passes.selection.targets.Targets`.
        solver_time: seconds that its search may take.
        images: measure means, and variances where BatchNorm was folded, on these images; None:
            closed forms where there is BatchNorm.
        input_shapes: sizes of dynamic axes other than the batch, by input name.
        batch_size: images at a time when measuring.
    """

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Prune.

        Raises:
            OptionError: a pattern matches no layer, or options do not go together.
            PlanError: the plan does not fit the model.
            BudgetError: a target cannot be reached.
        """
        plan = None if self.plan is None else load_pruning(self.plan)
        if isinstance(plan, PruningPlan):
            self.refuse_beside_a_plan()
            return replay(model, plan, self.input_shapes)
        ratios = None if plan is None else self.followed(plan)
        if self.exact:
            return self._after_exact(model)
        analysis = analyse(model, shapes=self.input_shapes)
        locks = locked_layers(analysis, self.only, self.exclude)
        known, solved = measured(self, analysis, model), list[Selection]()
        found = rewrite_or_lock(analysis, locks, lambda a: choose(self, a, known, ratios, solved))
        analysis, removed, rewritten = found
        expected = means(self, analysis, removed)
        folded, notes = fold_constants(analysis, removed, self.absorb, expected)
        if ratios is not None:
            notes = (*group_ratios(analysis, ratios)[1], *notes)
        result = pruning_result(analysis, removed, rewritten, folded, notes)
        if solved:
            result = replace(result, details={**result.details, "selection": solved[-1].report})
        return result

    def _after_exact(self, model: onnx.ModelProto) -> PassResult:
        """Remove what costs nothing, then prune what is left."""
        from onnx_esn.passes.exact.redundant import RemoveRedundant

        limits = self.round_to, self.min_width, self.only, self.exclude
        first = RemoveRedundant(self.input_shapes, *limits)(model)
        ratio, target = self.ratio, self.target_macs
        if target is not None:  # a percentage speaks of the input model
            target = Target(parse_target(target).resolve(first.details["macs_before"]))
        elif ratio is None and self.plan is None:
            ratio = 0.0
        if self.selection == QCQP:
            targets = absolute(self.targets(), model, self.input_shapes)
            rest = replace(self, exact=False, **targets)
        else:
            rest = replace(self, exact=False, ratio=ratio, target_macs=target)
        result = joined(first, rest(first.model))
        return replace(result, details={**result.details, "exact": dict(first.details)})
