"""What everything in a model would lose, measured once: its channels and its bits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.graph.channels.groups import Analysis, analyse, analyse_again
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.allocation.filter_errors import Change, filter_errors
from onnx_esn.passes.allocation.losses import GroupCurve, bit_losses, width_curves
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
        images: the calibration set, with further views where they are wanted.
        passes: how often all images may be run for the sensitivities (each layer takes a probe,
            each group two, on as many images as that allows); 0 takes all layers alike.
        only, exclude: patterns of layers, as for `Prune` and `Quantize`.
        input_shape: sizes of dynamic axes.
        quantizer: the grid.
        prune, quantize: which of the two kinds of loss is wanted.
        options: of the walk.
        held: images, by their indices among those that are no further views, that will judge what
            is decided: no loss is measured on them.

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
    seen = observe(model, images, names, options, held=images.all_views_of(sorted(apart)).tolist())
    images = images.as_they_are
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
    for name in (layer.name for job in losses.jobs for layer in job.layers):
        m = moments.get(name)
        if m is not None:
            own, absent = weights.filters.get(name), weights.absent.get(name)
            bits[name] = bit_losses(m, weights.layers[name], quantizer, own, absent)
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
