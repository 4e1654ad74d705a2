"""compress: prune, refit, quantize, annotate, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source
from onnx_esn.errors import OptionError
from onnx_esn.evaluation import Comparison, evaluate
from onnx_esn.passes.aciq import Aciq
from onnx_esn.passes.annotation import Annotate
from onnx_esn.passes.base import Pass, PassResult
from onnx_esn.passes.bit_budget import QuantizeToBudget
from onnx_esn.passes.compensated import CompensatedQuantization
from onnx_esn.passes.export import runnable
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.learning.float_layers import LearnWeights
from onnx_esn.passes.pruning import Prune, RemoveZeroFilters
from onnx_esn.passes.quantization import Quantize
from onnx_esn.passes.recalibration import Recalibrate
from onnx_esn.passes.reconstruction import Reconstruct
from onnx_esn.passes.requantization import open_weights
from onnx_esn.passes.storing import NONE, Storing
from onnx_esn.verbs import (
    ON_IMAGES,
    InputShape,
    Model,
    Progress,
    check_method,
    learning,
    named_shapes,
    open_images,
    opened_plain,
)

Stage = tuple[str, PassResult]
# Share of the images that `compress` keeps for its closing figures.
HELD_OUT = 0.2
LEAST_TO_SPLIT = 10


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` returns.

    Attributes:
        model: the compressed model.
        stages: (name, result) of each pass, in order.
        evaluation: the input model and the compressed one side by side, on held-out images; None
            where there are too few images to hold any out.
        held: these images, or None.
    """

    model: onnx.ModelProto
    stages: tuple[Stage, ...]
    evaluation: Comparison | None
    held: CalibrationSet | None = None

    @property
    def pruning(self) -> tuple[Stage, ...]:
        """The stages before `quantize`, which another bit width can take over."""
        names = [name for name, _ in self.stages]
        return self.stages[: names.index("quantize")]


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
        input_shape: sizes of dynamic axes.
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
    source = opened_plain(model)
    dataset, held = image_sets(source, images, eval_images, recipe, labels)
    shapes = named_shapes(source, input_shape)
    opening = open_weights(source, requantize=requantize, only=only, exclude=exclude)
    opened = opening.model
    if known is not None:
        known.is_of(opened)
    stages: list[Stage] = list(pruned or ())
    if opening.modified and not stages:
        stages.append(("requantize", opening))
    current = stages[-1][1].model if stages else source

    def run(name: str, step: Pass) -> PassResult:
        nonlocal current
        if progress is not None:
            progress(name, 0, 1)
        result = step(current)
        stages.append((name, result))
        current = result.model
        if progress is not None:
            progress(name, 1, 1)
        return result

    lossy = bool(ratio) or target_macs is not None
    walk = WalkOptions(batch_size=batch_size, threads=threads, known=known, progress=progress)
    compensated = method in ON_IMAGES
    learned = learning("qil" if learn else method, epochs, start_bits, seed, threads, progress)
    only, exclude = tuple(only), tuple(exclude)
    if pruned is None and (lossy or exact):
        pruner = Prune(
            ratio=ratio,
            target_macs=target_macs,
            criterion=criterion,
            scope=scope,
            round_to=round_to,
            min_width=min_width,
            only=only,
            exclude=exclude,
            exact=exact,
            absorb=absorb,
            images=dataset,
            input_shapes=shapes,
            batch_size=batch_size,
        )
        if run("prune", pruner).modified and lossy:
            if compensated:
                run("refit", Reconstruct(dataset, opened, exclude, only, walk))
                if learn and learned is not None:
                    run("learn", LearnWeights(dataset, opened, exclude, only, learned))
            else:
                run("recalibrate", _towards(opened, dataset, batch_size, threads, progress))
    if compensated:
        quantization = CompensatedQuantization(
            dataset,
            bits=bits,
            target_cost=target_cost,
            prune=channels and not lossy,
            effort=effort,
            only=only,
            exclude=exclude,
            round_to=round_to,
            min_width=min_width,
            most_bits=storing.most_bits(quantizer),
            reference=_learned_model(stages) or opened,
            teacher=opened,
            cost_of=source,
            quantizer=quantizer,
            input_shape=shapes,
            walk=walk,
            learn=learned,
            activations=storing.learned(only, exclude, batch_size, threads),
        )
        stages += quantization.stages(current)
        current = stages[-1][1].model
    elif method == "aciq":
        aciq = Aciq(bits, target_cost, exclude, only, source, shapes, quantizer)
        if run("quantize", aciq).details["pruned_filters"]:
            run("remove zero filters", RemoveZeroFilters(shapes))
    else:
        quantizer_pass = Quantize(
            bits=bits,
            target_cost=target_cost,
            only=only,
            exclude=exclude,
            reference=source,
            input_shape=shapes,
            quantizer=quantizer,
        )
        quantized = run("quantize", QuantizeToBudget(quantizer_pass, shapes))
        if quantized.details["pruned_filters"]:
            run("remove zero filters", RemoveZeroFilters(shapes))
        run("recalibrate", _towards(opened, dataset, batch_size, threads, progress))
    if not storing.nothing:
        plan = next((x.plan for name, x in stages if name == "quantize"), None)
        step = storing.step(
            dataset, plan=plan, only=only, exclude=exclude, batch_size=batch_size, threads=threads
        )
        run("export" if activations == NONE else "quantize activations", step)
    run("annotate", Annotate(shapes))
    comparison = None
    if held is not None:
        comparison = evaluate(
            [source, runnable(current)],
            held,
            names=["before", "after"],
            batch_size=batch_size,
            threads=threads,
            latency=latency,
            input_shape=shapes,
        )
    return CompressionResult(current, tuple(stages), comparison, held)


def _learned_model(stages: Sequence[Stage]) -> onnx.ModelProto | None:
    """What was fine-tuned: to refit it to the input model again would undo that."""
    learned = [result for name, result in stages if name == "learn" and result.modified]
    return learned[-1].model if learned else None


def image_sets(
    model: onnx.ModelProto,
    images: Source,
    eval_images: Source | None,
    recipe: str | Path | Recipe | None,
    labels: str | Path | npt.NDArray[Any] | None,
) -> tuple[CalibrationSet, CalibrationSet | None]:
    """The set to calibrate on, and the one for the closing figures."""
    if eval_images is not None:
        held = open_images(model, eval_images, recipe, labels)
        dataset = open_images(model, images, recipe)
        assert dataset is not None
        return dataset, held
    dataset = open_images(model, images, recipe, labels)
    assert dataset is not None
    return dataset.split(HELD_OUT) if len(dataset) >= LEAST_TO_SPLIT else (dataset, None)


def _towards(
    source: onnx.ModelProto,
    images: CalibrationSet,
    batch_size: int,
    threads: int | None,
    progress: Progress | None,
) -> Recalibrate:
    return Recalibrate(
        images, reference=source, batch_size=batch_size, threads=threads, progress=progress
    )
