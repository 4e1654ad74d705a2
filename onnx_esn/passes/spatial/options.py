"""From the options of the verb `prune` to the spatial pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.spatial.pruning import PruneSpatial
from onnx_esn.plans import SpatialPlan

GRANULARITIES = ("channel", "spatial")


def is_spatial(granularity: str, planned: bool, plan: SpatialPlan | None) -> bool:
    """Whether kernel positions are pruned: asked for, or what a plan says.

    Args:
        granularity: one of `GRANULARITIES`.
        planned: whether there is a plan.
        plan: that plan, where it is a spatial one.

    Raises:
        OptionError: there is no such granularity, or the plan has another.
    """
    if granularity not in GRANULARITIES:
        known = ", ".join(GRANULARITIES)
        raise OptionError(f"granularity {granularity!r} is not known; there are: {known}")
    if granularity == "spatial" and planned and plan is None:
        raise OptionError("the plan is about channels; leave out granularity 'spatial'")
    return granularity == "spatial" or plan is not None


@dataclass(frozen=True)
class SpatialOptions:
    """The options of `prune` that `PruneSpatial` takes; see there."""

    ratio: float | None
    target_macs: str | float | None
    plan: SpatialPlan | None
    scope: str | None
    only: Sequence[str]
    exclude: Sequence[str]

    def refuse(self, **given: bool) -> None:
        """Refuse options that speak of channels, by name whether they were given.

        Beside a plan, which says all there is to say, refuse its own too.
        """
        if self.plan is not None:
            asked = {"only": self.only, "exclude": self.exclude, "scope": self.scope}
            for name in (name for name, there in asked.items() if there):
                raise OptionError(f"{name} does not go with a plan that is replayed: edit the plan")
        for name in (name for name, there in given.items() if there):
            raise OptionError(f"{name} speaks of channels; leave it out with granularity 'spatial'")

    def step(
        self,
        images: CalibrationSet | None,
        shapes: Mapping[str, Sequence[int]] | None,
        walk: WalkOptions,
    ) -> PruneSpatial:
        """The pass; raises `OptionError` where the options contradict each other."""
        return PruneSpatial(
            ratio=self.ratio,
            target_macs=self.target_macs,
            plan=self.plan,
            scope=self.scope or "layer",
            only=self.only,
            exclude=self.exclude,
            images=images,
            input_shapes=shapes,
            options=walk,
        )
