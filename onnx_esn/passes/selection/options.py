"""Which options go with which selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnx_esn.budgets import Target
from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.selection.costs import find_costs
from onnx_esn.passes.selection.targets import Targets

QCQP = "qcqp"
SELECTIONS = ("ranked", QCQP)


def check_selection(
    selection: str,
    targets: Targets,
    *,
    ratio: float | None,
    plan: object,
    criterion: str,
    scope: str | None,
    solver_time: float,
) -> None:
    """Refuse options of `Prune` that do not go with a selection; raises `OptionError`."""
    if selection != QCQP:
        others = [name for name in targets.given if name != "macs"]
        if others:
            raise OptionError(f"target_{others[0]} needs selection qcqp (--selection qcqp)")
        return
    if plan is not None:
        raise OptionError("selection qcqp does not go with a plan, which has its selection")
    if ratio is not None or not targets.given:
        raise OptionError(
            "selection qcqp needs a target instead of a ratio: target_macs, target_params, "
            "target_memory or target_latency"
        )
    if criterion != "signal-norm" or scope is not None:
        raise OptionError("selection qcqp ranks by itself: leave criterion and scope out")
    if not solver_time > 0:
        raise OptionError(f"solver_time must be above 0 seconds, not {solver_time:g}")


def absolute(
    targets: Targets, model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None
) -> dict[str, Any]:
    """The options of `Prune` for the same targets, percentages resolved with this model."""
    analysis = analyse(model, shapes=shapes)
    nothing_goes = np.full(analysis.classes.of.size, -1)
    costs = find_costs(analysis, nothing_goes, targets)
    wanted = targets.parsed().items()
    return {f"target_{name}": Target(t.resolve(costs.whole(name))) for name, t in wanted}
