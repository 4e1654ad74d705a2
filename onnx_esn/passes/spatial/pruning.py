"""The spatial pruning pass: decide, zero, refit, shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError
from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.rewrite.kernel_shrinking import Room, shrink_kernels
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.two_sizes import two_sizes
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.layers.costs import LayerView, view_layers
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.spatial.candidates import Candidate, find_candidates, find_rooms
from onnx_esn.passes.spatial.decision import Decision, by_macs, by_plan, by_ratio, to_plan
from onnx_esn.passes.spatial.refitting import SupportedRefit
from onnx_esn.plans import SpatialPlan

_ON_A_GRID = "its weights lie on a quantization grid; only smaller kernels (target_macs) go with it"


@dataclass(frozen=True)
class PruneSpatial:
    """Remove positions of convolution kernels.

    One of `ratio`, `target_macs` and `plan` says how much.

    Attributes:
        ratio: share of the positions of all filters that goes, 0 ≤ ratio < 1. Where all filters of
            a layer lose a border row or column its kernels get smaller; other positions become
            zeros, which cost what they did before in a runtime without sparse kernels.
        target_macs: MACs to reach from below by smaller kernels alone: a number, "300M", "50%".
        plan: a plan to replay.
        scope: "layer": the same share of each layer; "global": all positions ranked together.
        only, exclude: patterns of layers, as for `Prune`.
        images: refit what is left on these images; None: leave it as it is.
        input_shapes: sizes of dynamic axes other than the batch, by input name.
        options: how to gather statistics of the images.
    """

    ratio: float | None = None
    target_macs: str | float | Target | None = None
    plan: SpatialPlan | None = None
    scope: str = "layer"
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    images: CalibrationSet | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = None
    options: WalkOptions = field(default_factory=WalkOptions)

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if sum(x is not None for x in (self.ratio, self.target_macs, self.plan)) != 1:
            raise OptionError("say how much to prune: one of ratio, target_macs or plan")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio {self.ratio:g} is not a fraction: 0 ≤ ratio < 1")
        if self.scope not in ("layer", "global"):
            raise OptionError(f"scope {self.scope!r} is not one of layer, global")

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Prune.

        Raises:
            OptionError: a pattern matches no layer.
            PlanError: the plan does not fit the model.
            BudgetError: `target_macs` cannot be reached by smaller kernels.
            OnnxEsnError: the refit does not run, see `Reconstruct`.
        """
        source = standard_form(model, shapes=self.input_shapes)
        view, candidates, notes = self._found(source)
        total = sum(x.macs or 0 for x in view.layers)
        decisions = self._decided(candidates, total, notes)
        decisions = [d for d in decisions if not d.kept.all()]
        details = _details(candidates, decisions, total)
        if not decisions:
            return PassResult(model, False, tuple(notes), SpatialPlan(()), details)
        pruned = _zeroed(source, view, decisions)
        if self.images is not None:
            solver = SupportedRefit(supports=_supports(decisions))
            limits = tuple(self.exclude), tuple(self.only), self.options
            again = Reconstruct(self.images, source, *limits, solver=solver)(pruned)
            pruned = again.model
            notes += again.skipped
            notes += [Skipped(n, _NOT_SOLVED) for n in solver.left]
            details |= again.details
        pruned = self._shrunk(pruned, decisions)
        after, _ = self._view(pruned)
        details["macs_after"] = sum(x.macs or 0 for x in after.layers)
        kept = tuple(dict.fromkeys(notes))
        return PassResult(pruned, True, kept, to_plan(decisions), details)

    def _view(self, model: onnx.ModelProto) -> tuple[LayerView, Any]:
        constants = Constants(model)
        sizes = two_sizes(model, constants, self.input_shapes)
        return view_layers(model, sizes[0], constants), sizes

    def _found(self, model: onnx.ModelProto) -> tuple[LayerView, list[Candidate], list[Skipped]]:
        view, sizes = self._view(model)
        found, notes = find_candidates(model, view, sizes, self.only, self.exclude)
        return view, found, notes

    def _decided(
        self, candidates: list[Candidate], total: int, notes: list[Skipped]
    ) -> list[Decision]:
        if self.plan is not None:
            return by_plan(candidates, self.plan)
        if self.ratio is not None:
            fine = [x for x in candidates if x.job.weight.step is None]
            notes += [Skipped(x.name, _ON_A_GRID) for x in candidates if x not in fine]
            return by_ratio(fine, self.ratio, self.scope) if fine else []
        notes += [Skipped(x.name, x.fixed) for x in candidates if x.fixed]
        assert self.target_macs is not None
        return by_macs(candidates, total, parse_target(self.target_macs).resolve(total))

    def _shrunk(self, model: onnx.ModelProto, decisions: Sequence[Decision]) -> onnx.ModelProto:
        view, sizes = self._view(model)  # the refit may have moved nodes
        layers = {x.name: x for x in view.layers}
        cuts = {x.name: d.cut for d in decisions if d.cut for x in d.candidate.job.layers}
        chosen = [layers[name] for name in cuts]
        rooms = find_rooms(model, chosen, view.constants, sizes)
        fine = {name: room for name, room in rooms.items() if isinstance(room, Room)}
        assert fine.keys() == cuts.keys()
        return shrink_kernels(model, layers, cuts, fine)


_NOT_SOLVED = "its filters keep too many different positions to refit each: only its variance is"


def _zeroed(
    model: onnx.ModelProto, view: LayerView, decisions: Sequence[Decision]
) -> onnx.ModelProto:
    result = copied(model)
    writer = WeightWriter(result, Constants(result))
    for d in decisions:
        job = d.candidate.job
        values = np.where(_support(d), job.weight.W, 0.0)
        writer.write(job.layers, job.weight, values)
    return result


def _support(d: Decision) -> np.ndarray:
    """(M, d): positions are the fastest axis of a filter's weights."""
    return np.tile(d.kept, (1, d.candidate.channels))


def _supports(decisions: Sequence[Decision]) -> dict[str, np.ndarray]:
    return {d.candidate.name: _support(d) for d in decisions}


def _details(
    candidates: Sequence[Candidate], decisions: Sequence[Decision], total: int
) -> dict[str, Any]:
    cut = sum(int((~d.inside).sum()) * len(d.kept) for d in decisions)
    zeroed = sum(d.zeroed for d in decisions)
    layers = [len(d.candidate.job.layers) for d in decisions if d.cut]
    kernels = {d.candidate.name: list(d.cut.left(d.candidate.kernel)) for d in decisions if d.cut}
    return {
        "positions_before": sum(x.importance.size for x in candidates),
        "positions_cut": cut,
        "positions_zeroed": zeroed,
        "weights_zeroed": sum(d.zeroed * d.candidate.channels for d in decisions),
        "layers_shrunk": sum(layers),
        "kernels": kernels,
        "macs_before": total,
        "macs_after": total,
    }
