"""The verb `compress`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import Recipe, Source
from onnx_esn.errors import OptionError
from onnx_esn.evaluation import evaluate
from onnx_esn.outside import any_outside, brought_inside
from onnx_esn.passes.annotation import Annotate
from onnx_esn.passes.export import runnable
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.quantizing.requantization import open_weights
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.storing import Storing
from onnx_esn.pipeline.image_sets import image_sets
from onnx_esn.pipeline.result import CompressionResult, Stage
from onnx_esn.pipeline.stages import Stages, Wanted
from onnx_esn.verbs import (
    ON_IMAGES,
    InputShape,
    Model,
    Progress,
    check_method,
    learning,
    named_shapes,
    opened_plain,
)


def compress(
    model: Model,
    images: Source,
    *,
    ratio: float | None = None,
    target_macs: str | float | None = None,
    bits: int | None = None,
    target_cost: str | float | None = None,
    method: str = "compensated",
    effort: str = "balanced",
    channels: bool = True,
    learn: bool = False,
    epochs: int | None = None,
    start_bits: int | None = None,
    seed: int = 0,
    quantizer: str = "mid-rise",
    criterion: str = "signal-norm",
    scope: str | None = None,
    round_to: int = 1,
    min_width: int = 1,
    exact: bool = False,
    absorb: str = "mean",
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    requantize: bool = False,
    rotate: bool = True,
    format: str = "fake",
    keep_opset: bool = False,
    opset: int | None = None,
    activations: str = "none",
    calibrator: str | None = None,
    recipe: str | Path | Recipe | None = None,
    labels: str | Path | npt.NDArray[Any] | None = None,
    eval_images: Source | None = None,
    pruned: Sequence[Stage] | None = None,
    input_shape: InputShape | None = None,
    views: int | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    latency: bool = True,
    known: Known | None = None,
    progress: Progress | None = None,
) -> CompressionResult:
    """Prune, quantize, annotate; then compare on held-out images.

    With a `target_cost` alone, widths and bits are decided together (`passes.allocation`). With
    `ratio` or `target_macs` the model is pruned first, and bits take what is left of the cost.

    Args:
        model: path or model.
        images, recipe: what `open_set` takes.
        eval_images: a set for the closing figures; None: a fifth of `images` is held out for them.
        labels: of the images that the closing figures are taken on; used for nothing else.
        pruned: the `pruning` of an earlier result with the same model, images and pruning options,
            taken over instead of pruning again.
        ratio, target_macs: how much to prune (at most one; none: no pruning).
        exact: first remove what changes nothing.
        bits, target_cost: how to quantize. A percentage refers to the input model. With both, every
            filter has as many bits, and channels go until the cost is met.
        method: "compensated", "qil": learned from there, or "nearest": plain rounding, then
            recalibration, or "aciq", see
            `quantize` (both: one of bits and target_cost).
        effort: "fast", "balanced" or "thorough": how much is tried to meet `target_cost`.
        learn: fine-tune on the images, towards the outputs of the float model: the weights of a
            pruned model, and then codes, steps and biases as method "qil" does.
        epochs, start_bits, seed: of learning, see `onnx_esn.passes.learning.options.LearnOptions`.
        channels: whether `target_cost` may be met by removing channels too.
        quantizer: "mid-rise", or "mid-tread" for comparison.
        criterion, scope, round_to, min_width, absorb: see `Prune`.
        only, exclude: see `Prune`; the same layers are not quantized.
        requantize, format, keep_opset, opset, activations, calibrator: see `quantize`.
        rotate: see `quantize`; after pruning, where the model is pruned first.
        input_shape: sizes of dynamic axes.
        views: see `quantize`.
        batch_size, threads: for running the images.
        latency: measure latency for the closing figures.
        known: what calls with the same model and images share of what they observe of it.
        progress: called with (what is done, how much, of how much).

    Raises:
        OnnxEsnError: see the passes.
    """
    if ratio is not None and target_macs is not None:
        raise OptionError("give one of ratio and target_macs, not both")
    check_method(method, bits, target_cost)
    if learn and method not in ON_IMAGES:
        raise OptionError(f"learning starts from compensated codes: leave out method {method}")
    storing = Storing(format, keep_opset, opset, activations, calibrator)
    source = opened_plain(model, outside=True)
    dataset, held = image_sets(source, images, eval_images, recipe, labels)
    shapes = named_shapes(source, input_shape)
    opening = open_weights(source, requantize=requantize, only=only, exclude=exclude)
    if known is not None:
        known.is_of(opening.model)
    walk = WalkOptions(
        views=views, batch_size=batch_size, threads=threads, known=known, progress=progress
    )
    setting = Setting(dataset, shapes, tuple(only), tuple(exclude), walk)
    learned = learning("qil" if learn else method, epochs, start_bits, seed, threads, progress)
    lossy = bool(ratio) or target_macs is not None
    pruner = None
    if pruned is None and (lossy or exact):
        pruner = Prune(
            ratio=ratio,
            target_macs=target_macs,
            criterion=criterion,
            scope=scope,
            round_to=round_to,
            min_width=min_width,
            only=setting.only,
            exclude=setting.exclude,
            exact=exact,
            absorb=absorb,
            images=dataset,
            input_shapes=shapes,
            batch_size=batch_size,
        )
    wanted = Wanted(
        pruner=pruner,
        lossy=lossy,
        bits=bits,
        target_cost=target_cost,
        method=method,
        effort=effort,
        channels=channels,
        round_to=round_to,
        min_width=min_width,
        quantizer=quantizer,
        rotate=rotate,
        fine_tune=learn,
        learning=learned,
        storing=storing,
    )
    stages = Stages(source, opening.model, setting, wanted, list(pruned or ()))
    if opening.modified and not stages.done:
        stages.done.append(("requantize", opening))
    stages.prune()
    stages.quantize()
    stages.store()
    stages.run("annotate", Annotate(shapes))
    comparison = None
    if held is not None:
        comparison = evaluate(
            [source, runnable(stages.current)],
            held,
            names=["before", "after"],
            batch_size=batch_size,
            threads=threads,
            latency=latency,
            input_shape=shapes,
        )
    done, small = tuple(stages.done), stages.current
    if any_outside(small) and not isinstance(model, onnx.ModelProto):
        # Who saves it with `onnx.save` need not know where the weights were meanwhile.
        small = brought_inside(small)
        done = (*done[:-1], (done[-1][0], replace(done[-1][1], model=small)))
    return CompressionResult(small, done, comparison, held)
