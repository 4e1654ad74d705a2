"""Widths and bits for one budget, by losses that were measured once (`measuring`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.esn import esn_prime
from onnx_esn.numerics.joint_allocation import LayerCost, allocate
from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.allocation.losses import filter_classes, input_classes
from onnx_esn.passes.allocation.measuring import Losses
from onnx_esn.passes.quantizing.quantizable import Job

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Decision:
    """What goes, and the bits of what stays.

    Attributes:
        gone: classes of channels that go.
        bits: by layer name, bits (M,) of each filter of the model as it is; 0 for those that go,
            and for those that fall silent in channels that stay.
        cost: ESN'_d in MAC·bit.
        loss: expected divergence.
    """

    gone: Integers
    bits: Mapping[str, Integers]
    cost: float
    loss: float


def decide(
    losses: Losses,
    budget: float,
    *,
    bits: int | None = None,
    prune_scale: float = 1.0,
    round_to: int = 1,
    min_width: int = 1,
    most_bits: int = MAX_BITS,
    quantizer: Quantizer = MID_RISE,
    quantizing: bool = True,
) -> Decision:
    """Widths and bits of least expected loss within a budget.

    Args:
        losses: of the model.
        budget: ESN'_d in MAC·bit.
        bits: the same bits for every filter; only widths are chosen.
        prune_scale: what a channel's loss counts against a bit's; infinite: no pruning.
        round_to, min_width: limits of the widths of groups.
        most_bits: no filter gets more.
        quantizer: the grid.
        quantizing: whether what is left will be quantized, for which filters need a few weights.

    Raises:
        BudgetError: the budget is below the smallest cost that can be reached.
    """
    costs, names, fixed = _costs(losses, quantizer, most_bits, uniform=bits is not None)
    curves = losses.curves if np.isfinite(prune_scale) else ()
    found = allocate(
        costs,
        [c.for_grids if quantizing else c.curve for c in curves],
        budget,
        fixed_cost=fixed,
        bits=bits,
        round_to=round_to,
        min_width=min_width,
        prune_scale=prune_scale if curves else 1.0,
    )
    gone = [c.curve.order[:n] for c, n in zip(curves, found.gone, strict=True)]
    chosen = {x: of for xs, of in zip(names, found.bits, strict=True) for x in xs}
    none = np.zeros(0, np.int64)
    return Decision(np.concatenate([none, *gone]).astype(np.int64), chosen, found.cost, found.loss)


def _costs(
    losses: Losses, quantizer: Quantizer, most_bits: int, *, uniform: bool
) -> tuple[list[LayerCost], list[list[str]], float]:
    """The weights to allocate, the names of the layers that read each, and what all others cost."""
    analysis = losses.analysis
    labelled = {x.name: x for x in analysis.layers}
    jobs = {x.name: job for job in losses.jobs for x in job.layers}
    costs: list[LayerCost] = []
    names: list[list[str]] = []
    fixed, of_job = 0.0, dict[str, int]()
    for layer in losses.view.layers:
        if layer.macs_per_filter is None:
            continue
        job = jobs.get(layer.name)
        if job is None:
            bits = read_weight(layer, losses.view.constants).filter_bits
            fixed += esn_prime(np.full(layer.filters, layer.macs_per_filter), bits)
            continue
        own = labelled.get(layer.name)
        filters = np.full(layer.filters, -1) if own is None else filter_classes(analysis, own)
        inputs = None
        if own is not None and not layer.depthwise:
            inputs = _one_group(input_classes(analysis, own), layer.groups)
        unit = float(layer.macs_per_filter)
        if inputs is not None:
            unit /= inputs.size
        loss = losses.bits.get(layer.name)
        if uniform:
            loss = np.zeros((layer.filters, MAX_BITS + 1))
        elif loss is None:
            loss = _plain_losses(job, quantizer)
        else:
            loss = loss.copy()
            # Others are taken away by widths, which know what that costs.
            stays = ~losses.droppable.get(layer.name, np.zeros(layer.filters, np.bool_))
            loss[stays, 0] = np.where(loss[stays, 0] > 0, np.inf, 0.0)
        if not uniform:
            loss[:, 1 : quantizer.least_bits] = np.where(loss[:, :1] > 0, np.inf, 0.0)
        loss[:, min(job.most_bits, most_bits) + 1 :] = np.inf
        cost = LayerCost(unit, filters, inputs, loss)
        at = of_job.setdefault(job.name, len(costs))
        if at < len(costs) and _alike(costs[at], cost):
            both = costs[at].distortion + cost.distortion
            costs[at] = replace(costs[at], unit=costs[at].unit + unit, distortion=both)
            names[at].append(layer.name)
        else:  # a weight that has to be split gets what the least of its layers may have
            costs.append(cost)
            names.append([layer.name])
    return costs, names, fixed


def _alike(a: LayerCost, b: LayerCost) -> bool:
    """Whether two layers of one weight lose the same channels."""
    if a.inputs is None or b.inputs is None:
        same = a.inputs is b.inputs
    else:
        same = np.array_equal(a.inputs, b.inputs)
    return same and np.array_equal(a.filters, b.filters)


def _one_group(classes: Integers | None, groups: int) -> Integers | None:
    """The input classes that one filter reads, where those of all groups go together."""
    if classes is None or classes.size % groups:
        return None
    rows = classes.reshape(groups, -1)
    return rows[0] if (rows == rows[0]).all() else None


def _plain_losses(job: Job, quantizer: Quantizer) -> Floats:
    """Losses (M, 9) of a layer without moments, by its weights alone."""
    _, error = quantizer.step_for_all_bits(job.weight.W)
    total = float(error[:, 0].sum())
    loss = error / total if total > 0 else error
    loss[:, 0] = np.where(loss[:, 0] > 0, np.inf, 0.0)
    return np.asarray(loss)
