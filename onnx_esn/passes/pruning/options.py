"""What can be asked of pruning, and which of it goes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx_esn.budgets import Target
from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError
from onnx_esn.passes.pruning.absorption import MODES
from onnx_esn.passes.pruning.scores import CRITERIA
from onnx_esn.passes.pruning.widths import check_widths
from onnx_esn.passes.selection.options import SELECTIONS, check_selection
from onnx_esn.passes.selection.targets import Targets
from onnx_esn.plans import PruningPlan, PruningRatios
from onnx_esn.plans.latency_model import LatencyModel

RECONSTRUCTION = "reconstruction"


@dataclass(frozen=True)
class PruneOptions:
    """The options of `Prune`; see there."""

    ratio: float | None = None
    target_macs: str | float | Target | None = None
    plan: PruningPlan | PruningRatios | str | Path | None = None
    criterion: str = "signal-norm"
    scope: str | None = None
    round_to: int = 1
    min_width: int = 1
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    exact: bool = False
    absorb: str = "mean"
    selection: str = "ranked"
    target_params: str | float | Target | None = None
    target_memory: str | float | Target | None = None
    target_latency: str | float | Target | None = None
    latency_model: LatencyModel | str | Path | None = None
    solver_time: float = 60.0
    images: CalibrationSet | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = field(default=None)
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        _among("selection", self.selection, SELECTIONS)
        targets = self.targets()
        check_selection(
            self.selection,
            targets,
            ratio=self.ratio,
            plan=self.plan,
            criterion=self.criterion,
            scope=self.scope,
            solver_time=self.solver_time,
        )
        given = [x is not None for x in (self.ratio, targets.given or None, self.plan)]
        ratio_and_plan = given == [True, False, True]  # which `_followed` looks into
        if (sum(given) > 1 and not ratio_and_plan) or (not any(given) and not self.exact):
            raise OptionError("say how much to prune: one of ratio, target_macs or plan")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio {self.ratio:g} is not a fraction: 0 ≤ ratio < 1")
        _among("criterion", self.criterion, (*CRITERIA, RECONSTRUCTION))
        if self.scope is not None:
            _among("scope", self.scope, ("layer", "global"))
        _among("absorb", self.absorb, MODES)
        check_widths(self.round_to, self.min_width)

    def targets(self) -> Targets:
        """All targets."""
        return Targets(
            self.target_macs,
            self.target_params,
            self.target_memory,
            self.target_latency,
            self.latency_model,
        )

    def refuse_beside_a_plan(self) -> None:
        """Refuse what a plan that is replayed says itself; raises `OptionError`."""
        asked = {
            "ratio": self.ratio is not None,
            "only": bool(self.only),
            "exclude": bool(self.exclude),
            "round_to": self.round_to > 1,
            "min_width": self.min_width > 1,
            "exact": self.exact,
        }
        for name in (name for name, given in asked.items() if given):
            raise OptionError(f"{name} does not go with a plan that is replayed: edit the plan")

    def followed(self, plan: PruningRatios) -> PruningRatios:
        """The ratios with their default; raises `OptionError` where they have two."""
        if self.scope == "global":
            raise OptionError("scope 'global' does not go with ratios for single layers")
        if self.ratio is None:
            return plan
        if plan.default is not None:
            raise OptionError(
                f"the ratios have a default, {plan.default:g}; leave out that or ratio"
            )
        return replace(plan, default=self.ratio)


def _among(what: str, value: str, allowed: Mapping[str, object] | Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(f"{what} {value!r} is not one of {', '.join(allowed)}")
