"""From a labelled model to the quadratic program of its channels, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.numerics.qcqp.instance import Count, Floats, Instance, Integers, Width, worthless
from onnx_esn.numerics.qcqp.solve import Solution, solve, without_inactive
from onnx_esn.passes.pruning.steering import filters_of
from onnx_esn.passes.selection.costs import Costs, counted, find_costs
from onnx_esn.passes.selection.importance import Importance, find_importance
from onnx_esn.passes.selection.targets import NAMES, UNITS, Targets


@dataclass(frozen=True, eq=False)
class Program:
    """The program of a model.

    Attributes:
        free: the classes (n,) that may go, in the program's order.
        instance: the program.
        importance: what it maximises.
        costs: what the budgets count.
    """

    free: Integers
    instance: Instance
    importance: Importance
    costs: Costs


@dataclass(frozen=True, eq=False)
class Selection:
    """A solved program: per class of the analysis whether it goes, and the report."""

    removed: Mask
    report: Mapping[str, Any]


def find_program(
    analysis: Analysis,
    targets: Targets,
    round_to: int = 1,
    min_width: int = 1,
    variances: Mapping[str, Floats] | None = None,
) -> Program:
    """Put the program together.

    Args:
        analysis, targets, round_to, min_width, variances: see `select`.

    Raises:
        OptionError, PlanError: see `find_costs`.
    """
    layers = filters_of(analysis)
    holds = np.zeros(len(analysis.classes) + 1, np.bool_)
    for labels in layers.values():
        holds[analysis.classes.of[labels]] = True
    free = np.flatnonzero(holds[:-1] & ~analysis.classes.locked)
    number = np.full(len(analysis.classes) + 1, -1)
    number[free] = np.arange(free.size)
    place = number[analysis.classes.of]
    costs = find_costs(analysis, place, targets)
    wanted = targets.parsed()
    budgets = [costs.budget(n, wanted[n].resolve(costs.whole(n))) for n in NAMES if n in wanted]
    widths = []
    for members in analysis.constraints:
        classes = number[members]
        if (classes >= 0).all():  # else something stays for sure
            widths.append(Width(Count(0.0, classes, np.ones(classes.size))))
    if round_to > 1 or min_width > 1:
        for labels in layers.values():
            count = counted(labels, place)
            if count.classes.size:
                widths.append(Width(count, float(min(min_width, labels.size)), round_to))
    importance = find_importance(analysis, place, free.size, variances)
    instance = Instance(importance.linear, importance.blocks, budgets, widths, importance.constant)
    return Program(free, instance, importance, costs)


def select(
    analysis: Analysis,
    targets: Targets,
    *,
    round_to: int = 1,
    min_width: int = 1,
    seconds: float = 60.0,
    variances: Mapping[str, Floats] | None = None,
) -> Selection:
    """Choose the classes to remove.

    Args:
        analysis: the labelled model.
        targets: the budgets.
        round_to: widths of layers that lose filters become multiples of this.
        min_width: filters that every layer keeps; one with fewer keeps all.
        seconds: the time limit of the search.
        variances: measured variance (M,) of outputs of layers that no BatchNormalization follows,
            by output; see `find_importance`.

    Raises:
        BudgetError: a target cannot be reached.
        OptionError, PlanError: see `find_costs`.
    """
    program = find_program(analysis, targets, round_to, min_width, variances)
    everything = np.ones(program.free.size, np.bool_)
    instance = worthless(program.instance, _idle(program.importance, everything))
    removed = np.zeros(len(analysis.classes), np.bool_)
    if instance.met(everything):
        solution = _nothing_to_do(instance)
    else:
        solution = solve(instance, seconds)
        solution = without_inactive(instance, solution, program.importance.inactive)
    removed[program.free] = ~solution.keep
    return Selection(removed, _report(program, instance, solution, targets))


def _idle(importance: Importance, x: Mask) -> Mask:
    """The classes (n,) of a choice that nothing reads or that read nothing, one after another."""
    left = x.copy()
    while (idle := importance.inactive(left) & left).any():
        left &= ~idle
    return np.asarray(x & ~left)


def _nothing_to_do(instance: Instance) -> Solution:
    everything = np.ones(instance.size, np.bool_)
    value = instance.objective(everything)
    return Solution(everything, value, value, value, True, True, 0.0)


def _report(
    program: Program, instance: Instance, solution: Solution, targets: Targets
) -> dict[str, Any]:
    """The objective as shares of what the whole model is worth, and each budget."""
    whole = instance.objective(np.ones(instance.size, np.bool_)) or 1.0
    names = [n for n in NAMES if n in targets.parsed()]
    return {
        "objective": solution.objective / whole,
        "bound": solution.bound / whole,
        "greedy": solution.greedy / whole if np.isfinite(solution.greedy) else None,
        "optimal": solution.optimal,
        "time_limit_reached": not solution.in_time,
        "seconds": solution.seconds,
        "inactive": int((program.importance.inactive(solution.keep) & solution.keep).sum()),
        "budgets": {
            name: {
                "before": program.costs.whole(name),
                "limit": budget.limit,
                "after": budget.cost(solution.keep),
                "unit": UNITS[name],
            }
            for name, budget in zip(names, instance.budgets, strict=True)
        },
    }
