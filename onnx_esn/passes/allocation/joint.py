"""Widths and bits for one budget: measure once what everything loses, then allocate at will."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.graph.channels.groups import Analysis, analyse, analyse_again
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.esn import esn_prime
from onnx_esn.numerics.joint_allocation import LayerCost, allocate
from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.allocation.filter_errors import Change, filter_errors
from onnx_esn.passes.allocation.losses import (
    GroupCurve,
    bit_losses,
    filter_classes,
    input_classes,
    width_curves,
)
from onnx_esn.passes.allocation.sensitivity import (
    PROBED,
    Prober,
    Sensitivities,
    change_to,
    rough_weights,
    sensitivities,
)
from onnx_esn.passes.allocation.zero_bits import droppable, shared_filters
from onnx_esn.passes.layers.costs import InputShape, LayerView, measured_view
from onnx_esn.passes.layerwise.input_moments import InputMoments, input_moments
from onnx_esn.passes.layerwise.observation import Observation, observe
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.steering import locked_layers
from onnx_esn.passes.quantizing.quantizable import Job, find_quantizable

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

# Images of a probe.
FEWEST, MOST = 8, 256
BACKWARD = 5  # passes that going forward and back takes


@dataclass(frozen=True, eq=False)
class Losses:
    """What a model would lose, measured.

    Attributes:
        analysis: its channels, with the locks that were asked for.
        view: its layers.
        jobs: its weights that can be quantized.
        seen: its layers on the calibration set.
        moments: of their inputs, by layer name.
        weights: what errors count.
        curves: of the groups that can lose channels.
        bits: by layer name, loss (M, 9).
        droppable: by layer name, which filters (M,) may get 0 bits though their channels stay.
    """

    analysis: Analysis
    view: LayerView
    jobs: tuple[Job, ...]
    seen: Observation
    moments: Mapping[str, InputMoments]
    weights: Sensitivities
    curves: tuple[GroupCurve, ...]
    bits: Mapping[str, Floats]
    droppable: Mapping[str, Bools]


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


def measure_losses(
    model: onnx.ModelProto,
    images: CalibrationSet,
    *,
    passes: float,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shape: InputShape | None = None,
    quantizer: Quantizer = MID_RISE,
    prune: bool = True,
    quantize: bool = True,
    options: WalkOptions | None = None,
    held: Iterable[int] = (),
) -> Losses:
    """Measure what channels and bits are worth.

    Args:
        model: in standard form.
        images: the calibration set.
        passes: how often all images may be run for the sensitivities (each layer takes a probe,
            each group two, on as many images as that allows); 0 takes all layers alike.
        only, exclude: patterns of layers, as for `Prune` and `Quantize`.
        input_shape: sizes of dynamic axes.
        quantizer: the grid.
        prune, quantize: which of the two kinds of loss is wanted.
        options: of the walk.
        held: images that will judge what is decided: no loss is measured on them.

    Raises:
        OnnxEsnError: a pattern matches nothing; the model does not run.
    """
    options = options or WalkOptions()
    view = measured_view(model, input_shape)
    shapes = input_shape if isinstance(input_shape, Mapping) else None
    analysis = analyse(model, shapes=shapes)
    locks = locked_layers(analysis, only, exclude)
    analysis = analyse_again(analysis, locks) if locks else analysis
    jobs, _ = find_quantizable(model, view, exclude, only)
    names = [x.name for x in view.layers]
    apart = frozenset(map(int, held))
    seen = observe(model, images, names, options, held=apart)
    moments = input_moments(model, seen)
    seen = replace(seen, parts={})  # as large as what was made of them
    weights = Sensitivities(dict.fromkeys(names, 1.0), {}, {})
    prober = None
    if passes > 0:
        rough = {name: rough_weights(m) for name, m in moments.items()}
        predicted: dict[str, Floats] = {}
        if quantize:
            shared = shared_filters(analysis)
            changes = {
                name: [
                    change_to(m, rough[name]),
                    *([change_to(m, np.zeros_like(m.W))] if name in shared else []),
                ]
                for name, m in moments.items()
            }
            measured_on = images.subset([i for i in range(len(images)) if i not in apart])
            predicted = _predicted(model, measured_on, changes, passes / 2, options)
        layers = len(moments) if not predicted else min(len(moments), PROBED)
        probes = layers + (2 * len(analysis.groups) if prune else 0)
        left = passes / 2 if predicted else passes
        wanted = _count(left * len(images) / max(probes, 1))
        few = images.subset(_odd(len(images), apart, wanted))
        size, threads = options.batch_size, options.threads
        prober = Prober(model, moments, few, batch_size=size, threads=threads)
        found = sensitivities(prober, rough, predicted, options.report("sensitivity of layers"))
        weights = replace(found, layers={**weights.layers, **found.layers})
    curves: list[GroupCurve] = []
    if prune:
        report = options.report("sensitivity of groups")
        curves = width_curves(analysis, moments, weights.layers, prober, report)
    losses = Losses(analysis, view, tuple(jobs), seen, moments, weights, tuple(curves), {}, {})
    return with_bits(losses, moments, quantizer) if quantize else losses


def with_all_images(losses: Losses, quantizer: Quantizer = MID_RISE) -> Losses:
    """The same, with losses of bits by the inputs of all images: nothing is left to be judged."""
    if all(m.whole is m.H for m in losses.moments.values()):
        return losses
    moments = {name: replace(m, H=m.whole) for name, m in losses.moments.items()}
    return with_bits(losses, moments, quantizer)


def without_second_moments(losses: Losses) -> Losses:
    """The same, for what needs the means of inputs only."""
    none = np.zeros((0, 0, 0), np.float32)
    moments = {
        name: replace(m, H=none, half=none, whole=none) for name, m in losses.moments.items()
    }
    return replace(losses, moments=moments)


def with_bits(
    losses: Losses, moments: Mapping[str, InputMoments], quantizer: Quantizer = MID_RISE
) -> Losses:
    """The same, with what each filter loses at each number of bits, by these moments."""
    bits, weights = {}, losses.weights
    for job in losses.jobs:
        m = moments.get(job.name)
        if m is not None and len(job.layers) == 1:
            own, absent = weights.filters.get(job.name), weights.absent.get(job.name)
            bits[job.name] = bit_losses(m, weights.layers[job.name], quantizer, own, absent)
    missed = {name: loss[:, 0] for name, loss in bits.items() if name in weights.absent}
    return replace(losses, bits=bits, droppable=droppable(losses.analysis, missed))


def _predicted(
    model: onnx.ModelProto,
    images: CalibrationSet,
    changes: Mapping[str, Sequence[Change]],
    passes: float,
    options: WalkOptions,
) -> dict[str, Floats]:
    """What changing each filter does, from as many images as so many passes allow."""
    count = _count(passes / BACKWARD * len(images))
    spread = np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)
    return filter_errors(
        model,
        changes,
        images.subset([int(i) for i in spread]),
        batch_size=options.batch_size,
        threads=options.threads,
        progress=options.report("sensitivity of filters"),
    )


def _count(wanted: float) -> int:
    return min(max(round(wanted), FEWEST), MOST)


def _odd(count: int, held: Collection[int], wanted: int) -> list[int]:
    """Indices of odd samples, spread evenly: even ones are what the probes were fitted on."""
    odd = np.array([i for i in range(1, count, 2) if i not in held] or [0])
    at = np.linspace(0, odd.size - 1, min(wanted, odd.size)).astype(np.int64)
    return [int(i) for i in odd[at]]


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
    chosen = dict(zip(names, found.bits, strict=True))
    none = np.zeros(0, np.int64)
    return Decision(np.concatenate([none, *gone]).astype(np.int64), chosen, found.cost, found.loss)


def _costs(
    losses: Losses, quantizer: Quantizer, most_bits: int, *, uniform: bool
) -> tuple[list[LayerCost], list[str], float]:
    """The layers to allocate, their names, and what all others cost."""
    analysis = losses.analysis
    labelled = {x.name: x for x in analysis.layers}
    jobs = {x.name: job for job in losses.jobs for x in job.layers}
    costs, names, fixed = [], [], 0.0
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
        costs.append(LayerCost(unit, filters, inputs, loss))
        names.append(layer.name)
    return costs, names, fixed


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
