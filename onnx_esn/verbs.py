"""The verbs that take one step: a pass with its files opened, checked and written."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Session, Source, input_specs, open_set
from onnx_esn.errors import InferenceError, OptionError, VerificationError
from onnx_esn.graph.external_data import has_data_outside
from onnx_esn.graph.model_file import check_model, initializer_bytes, load_model, save_model
from onnx_esn.graph.model_source import ModelSource, plain_source, source_name
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.outside import any_outside, brought_inside
from onnx_esn.passes.absorption import ON_AVERAGE
from onnx_esn.passes.aciq import Aciq
from onnx_esn.passes.annotation import Annotate, annotated_shapes, strip_annotation
from onnx_esn.passes.base import Pass, PassResult
from onnx_esn.passes.bit_budget import QuantizeToBudget
from onnx_esn.passes.compensated import CompensatedQuantization
from onnx_esn.passes.equalization import Equalize
from onnx_esn.passes.export import Export, runnable
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.learning.options import EPOCHS, LearnOptions
from onnx_esn.passes.pruning import Prune, RemoveZeroFilters
from onnx_esn.passes.quantization import Quantize
from onnx_esn.passes.recalibration import Recalibrate
from onnx_esn.passes.reconstruction import Reconstruct
from onnx_esn.passes.requantization import open_weights, with_opening
from onnx_esn.passes.spatial.options import SpatialOptions, is_spatial
from onnx_esn.passes.storing import Storing, with_ranges
from onnx_esn.plans import (
    PruningPlan,
    PruningRatios,
    QuantizationPlan,
    SpatialPlan,
    load_plan,
    load_pruning,
    load_spatial,
)
from onnx_esn.plans.bit_policy import BitPolicy
from onnx_esn.plans.latency_model import LatencyModel

log = logging.getLogger(__name__)

_LARGE = 1 << 28  # bytes
METHODS = ("compensated", "nearest", "aciq", "qil")
ON_IMAGES = ("compensated", "qil")  # methods that need images

Model = ModelSource
Progress = Callable[[str, int, int], None]
InputShape = Sequence[int] | Mapping[str, Sequence[int]]
Verb = TypeVar("Verb", bound=Callable[..., PassResult])


def opened(model: Model, *, outside: bool = False) -> onnx.ModelProto:
    """Load a model and check it; `outside`: see `load_model`; raises `ModelError`."""
    source = plain_source(model)
    loaded = load_model(source, outside=outside)
    check_model(loaded, source_name(source))
    return loaded


def from_file(verb: Verb) -> Verb:
    """A verb that leaves the large weights of a model given by its path in their file meanwhile.

    Its result holds them: who saves it with `onnx.save` need not know.
    """

    @functools.wraps(verb)
    def run(model: Model, *args: Any, **options: Any) -> PassResult:
        source = plain_source(model)
        if isinstance(source, onnx.ModelProto):
            return verb(source, *args, **options)
        result = verb(opened(source, outside=True), *args, **options)
        if not any_outside(result.model):
            return result
        return replace(result, model=brought_inside(result.model))

    return run  # type: ignore[return-value]  # it takes what the verb takes


def opened_plain(model: Model, *, outside: bool = False) -> onnx.ModelProto:
    """The same in standard operators: local functions inlined, what onnxruntime fused apart."""
    return standard_form(opened(model, outside=outside))


def open_images(
    model: onnx.ModelProto,
    images: Source | None,
    recipe: str | Path | Recipe | None = None,
    labels: str | Path | npt.NDArray[Any] | None = None,
) -> CalibrationSet | None:
    """Open a calibration set for a model; None stays None."""
    if images is None:
        if recipe is not None:
            raise OptionError("a recipe says how to read images; give the images too")
        return None
    return open_set(images, input_specs(model), recipe=recipe, labels=labels)


@from_file
def prune(
    model: Model,
    *,
    ratio: float | None = None,
    target_macs: str | float | None = None,
    plan: PruningPlan | PruningRatios | SpatialPlan | str | Path | None = None,
    criterion: str = "signal-norm",
    scope: str | None = None,
    round_to: int = 1,
    min_width: int = 1,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    exact: bool = False,
    absorb: str = "mean",
    selection: str = "ranked",
    target_params: str | float | None = None,
    target_memory: str | float | None = None,
    target_latency: str | float | None = None,
    latency_model: LatencyModel | str | Path | None = None,
    solver_time: float = 60.0,
    granularity: str = "channel",
    images: Source | None = None,
    recipe: str | Path | Recipe | None = None,
    refit: bool = True,
    input_shape: InputShape | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Remove filters, and refit what is left where images are given.

    Args:
        model: path or model.
        images, recipe: the calibration set.
        refit: whether weights and biases are refitted to the input model's outputs on the images,
            see `onnx_esn.passes.reconstruction.Reconstruct`.
        input_shape: sizes of dynamic axes.
        ratio, target_macs, plan, criterion, scope, round_to, min_width, only, exclude, exact,
            absorb, selection, target_params, target_memory, target_latency, latency_model,
            solver_time: see `onnx_esn.passes.pruning.Prune`.
        granularity: "channel": whole filters; "spatial": positions of kernels, see
            `onnx_esn.passes.spatial.pruning.PruneSpatial`, which takes ratio, target_macs, scope,
            only and exclude. A plan says for itself.
        batch_size, threads, progress: for the images.
    """
    loaded = opened(model)
    spatial = load_spatial(plan)
    if is_spatial(granularity, plan is not None, spatial):
        given = SpatialOptions(ratio, target_macs, spatial, scope, tuple(only), tuple(exclude))
        given.refuse(
            criterion=criterion != "signal-norm",
            round_to=round_to > 1,
            min_width=min_width > 1,
            exact=exact,
            absorb=absorb != "mean",
            selection=selection != "ranked",
            target_params=target_params is not None,
            target_memory=target_memory is not None,
            target_latency=target_latency is not None,
            latency_model=latency_model is not None,
        )
        dataset = open_images(loaded, images, recipe) if refit else None
        walk = WalkOptions(batch_size=batch_size, threads=threads, progress=progress)
        result = _changed(given.step(dataset, named_shapes(loaded, input_shape), walk), loaded)
        if not result.modified and (ratio or target_macs is not None):
            log.warning("nothing was removed: ask for more; the notes say what stays")
        return result
    assert not isinstance(plan, SpatialPlan)
    decided = None if plan is None else load_pruning(plan)
    dataset = open_images(loaded, images, recipe)
    step = Prune(
        ratio=ratio,
        target_macs=target_macs,
        plan=decided,
        criterion=criterion,
        scope=scope,
        round_to=round_to,
        min_width=min_width,
        only=tuple(only),
        exclude=tuple(exclude),
        exact=exact,
        absorb=absorb,
        selection=selection,
        target_params=target_params,
        target_memory=target_memory,
        target_latency=target_latency,
        latency_model=latency_model,
        solver_time=solver_time,
        images=dataset,
        input_shapes=named_shapes(loaded, input_shape),
        batch_size=batch_size,
    )
    result = _changed(step, loaded)
    asked = ratio or step.targets().given or isinstance(decided, PruningRatios)
    if not result.modified and asked:
        if result.details.get("filters_prunable"):
            why = "ask for more, or for less with round_to and min_width"
        else:
            why = "no filter may go; the notes say what keeps them"
        log.warning("nothing was removed: %s", why)
    lossy = asked or isinstance(decided, PruningPlan)
    if dataset is None or not refit or not result.modified or not lossy:
        return result
    walk = WalkOptions(batch_size=batch_size, threads=threads, progress=progress)
    source = standard_form(loaded)
    again = Reconstruct(dataset, source, tuple(exclude), tuple(only), walk)(result.model)
    details = {**result.details, **again.details}
    skipped = tuple(dict.fromkeys((*result.skipped, *again.skipped)))
    return PassResult(again.model, True, skipped, result.plan, details)


@from_file
def recalibrate(
    model: Model,
    images: Source,
    *,
    reference: Model | None = None,
    method: str | None = None,
    recipe: str | Path | Recipe | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Correct the statistics of a compressed model; see `Recalibrate` for the arguments."""
    loaded = opened_plain(model)
    step = Recalibrate(
        images,
        reference=None if reference is None else opened_plain(reference, outside=True),
        method=method,  # type: ignore[arg-type]  # checked there
        recipe=recipe,
        batch_size=batch_size,
        threads=threads,
        progress=progress,
    )
    return _changed(step, loaded)


@from_file
def quantize(
    model: Model,
    *,
    bits: int | None = None,
    target_cost: str | float | None = None,
    plan: QuantizationPlan | str | Path | None = None,
    policy: BitPolicy | str | Path | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    images: Source | None = None,
    recipe: str | Path | Recipe | None = None,
    reference: Model | None = None,
    cost_of: onnx.ModelProto | None = None,
    quantizer: str = "mid-rise",
    method: str | None = None,
    effort: str = "balanced",
    epochs: int | None = None,
    start_bits: int | None = None,
    seed: int = 0,
    requantize: bool = False,
    format: str = "fake",
    keep_opset: bool = False,
    opset: int | None = None,
    activations: str = "none",
    calibrator: str | None = None,
    input_shape: InputShape | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Quantize, remove filters that got 0 bits, and recalibrate where images are given.

    Args:
        model: path or model.
        bits, target_cost, plan, policy, only, exclude: see
            `onnx_esn.passes.quantization.Quantize`. A policy is what `trace` writes.
        images, recipe: calibration set; None quantizes without any.
        reference: what to recalibrate towards; None: the input model.
        cost_of: the model a percentage in `target_cost` refers to; None: the input model.
        quantizer: "mid-rise", or "mid-tread" for comparison; a plan says for itself.
        method: "compensated": bits by measured losses, codes that make each other's errors good;
            the default with images. "nearest": plain rounding, then recalibration. "aciq":
            analytical clipping, see `onnx_esn.passes.aciq.Aciq`; the images change nothing. "qil":
            compensated, then codes, steps and biases learned on the images.
        epochs, start_bits, seed: of learning, see `onnx_esn.passes.learning.options.LearnOptions`.
        effort: "fast", "balanced" or "thorough", for a compensated `target_cost`.
        requantize: quantize weights that are integers already once more, see
            `onnx_esn.passes.requantization`; without it they are refused.
        format: "fake": float weights on the grid; "qdq": integers behind DequantizeLinear;
            "qonnx": Quant nodes.
        keep_opset, opset: see `onnx_esn.passes.export.Export`.
        activations: "none", "int8", "int16", or "uint2" to "uint8": quantize the activations too,
            on the images, see `onnx_esn.passes.activations.QuantizeActivations`; implies format
            "qdq". Their ranges are calibrated, of method "qil" learned, or those of the plan.
        calibrator: see there.
        input_shape: sizes of dynamic axes.
        batch_size, threads, progress: for the images.
    """
    storing = Storing(format, keep_opset, opset, activations, calibrator)
    plan = None if plan is None else load_plan(plan, QuantizationPlan)
    storing.check(images, plan)
    source = opened_plain(model)
    opening = open_weights(source, requantize=requantize, only=only, exclude=exclude, plan=plan)
    loaded = opening.model
    cost_of = source if cost_of is None and opening.modified else cost_of
    dataset = open_images(loaded, images, recipe)
    shapes = named_shapes(loaded, input_shape)
    towards = loaded if reference is None else opened_plain(reference, outside=True)
    store = functools.partial(
        _stored, storing, dataset, tuple(only), tuple(exclude), batch_size, threads
    )
    method = method or ("nearest" if dataset is None or plan is not None else "compensated")
    learn = learning(method, epochs, start_bits, seed, threads, progress)
    if method in ON_IMAGES and plan is None:
        check_method(method, bits, target_cost, policy)
        if dataset is None:
            raise OptionError(f"method {method} needs images (--images)")
        compensated = _changed(
            CompensatedQuantization(
                dataset,
                bits=bits,
                target_cost=target_cost,
                policy=policy,
                effort=effort,
                only=tuple(only),
                exclude=tuple(exclude),
                most_bits=storing.most_bits(quantizer),
                reference=towards,
                cost_of=cost_of,
                quantizer=quantizer,
                input_shape=shapes,
                walk=WalkOptions(batch_size=batch_size, threads=threads, progress=progress),
                learn=learn,
                activations=storing.learned(tuple(only), tuple(exclude), batch_size, threads),
            ),
            loaded,
        )
        return store(with_opening(compensated, opening))
    if plan is not None and method in METHODS and method != "nearest":
        raise OptionError(f"a plan has its codes: method {method} does not go with it")
    if method == "aciq" and policy is not None:
        raise OptionError("method aciq allots bits itself; leave the policy out")
    if method != "nearest":
        check_method(method, bits, target_cost)
    step: Pass = QuantizeToBudget(
        Quantize(
            bits=bits,
            target_cost=target_cost,
            plan=plan,
            policy=policy,
            only=tuple(only),
            exclude=tuple(exclude),
            reference=cost_of,
            input_shape=shapes,
            quantizer=quantizer,
        ),
        shapes,
    )
    if method == "aciq":
        step = Aciq(bits, target_cost, tuple(exclude), tuple(only), cost_of, shapes, quantizer)
    result = _changed(step, loaded)
    zero = RemoveZeroFilters(shapes)(result.model)
    details = dict(result.details)
    skipped = list(result.skipped)
    if zero.modified:
        details |= {
            "removed_filters": zero.details["filters_removed"],
            "macs_after": zero.details["macs_after"],
        }
        skipped += [s for s in zero.skipped if ON_AVERAGE in s.reason]
    final = zero.model
    if dataset is not None and method != "aciq":
        back = Recalibrate(
            dataset,
            reference=towards,
            batch_size=batch_size,
            threads=threads,
            progress=progress,
        )(final)
        final = back.model
        skipped += back.skipped
        details["recalibration"] = dict(back.details)
    modified = result.modified or final != loaded
    done = PassResult(final, modified, tuple(skipped), result.plan, details)
    return store(with_opening(done, opening))


def learning(
    method: str,
    epochs: int | None,
    start_bits: int | None,
    seed: int,
    threads: int | None,
    progress: Progress | None,
) -> LearnOptions | None:
    """How to learn; None where the method does not.

    Raises:
        OptionError: options of learning for a method that learns nothing, or senseless ones.
    """
    if method != "qil":
        for name, value in (("epochs", epochs), ("start-bits", start_bits)):
            if value is not None:
                raise OptionError(f"{name} is for what learns: method qil")
        return None
    return LearnOptions(
        epochs=EPOCHS if epochs is None else epochs,
        start_bits=start_bits,
        seed=seed,
        threads=threads,
        progress=progress,
    )


def check_method(method: str, bits: int | None, target_cost: object, policy: object = None) -> None:
    """Raise `OptionError` where a method is unknown, or is not told how to quantize."""
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise OptionError(f"method {method!r} is not known; there are: {known}")
    if bits is None and target_cost is None and policy is None:
        raise OptionError("say how to quantize: bits or target_cost")
    if method not in ON_IMAGES and bits is not None and target_cost is not None:
        raise OptionError("say how to quantize: one of bits or target_cost")


@from_file
def convert(
    model: Model, *, format: str, keep_opset: bool = False, opset: int | None = None
) -> PassResult:
    """Store a model whose weights lie on a grid in another format; it computes the same.

    Its annotation, where it has one, is renewed: it speaks of stored types.

    Args:
        model: path or model.
        format: a name in `onnx_esn.formats.FORMATS`.
        keep_opset, opset: see `onnx_esn.passes.export.Export`.
    """
    loaded = opened_plain(model)
    result = Export(format, keep_opset=keep_opset, opset=opset, strict=True)(loaded)
    shapes = annotated_shapes(loaded)
    return result if shapes is None else replace(result, model=Annotate(shapes)(result.model).model)


def _stored(
    storing: Storing,
    images: CalibrationSet | None,
    only: tuple[str, ...],
    exclude: tuple[str, ...],
    batch_size: int,
    threads: int | None,
    result: PassResult,
) -> PassResult:
    if storing.nothing:
        return result
    step = storing.step(
        images, plan=result.plan, only=only, exclude=exclude, batch_size=batch_size, threads=threads
    )
    done = step(result.model)
    skipped = tuple(dict.fromkeys((*result.skipped, *done.skipped)))
    details = {**result.details, **done.details}
    return replace(
        result,
        model=done.model,
        modified=True,
        skipped=skipped,
        details=details,
        plan=with_ranges(result.plan, done.plan),
    )


@from_file
def equalize(
    model: Model, *, across: str = "homogeneous", input_shape: InputShape | None = None
) -> PassResult:
    """Scale channels so that few bits fit more of their weights; the outputs stay what they are.

    Args:
        model: path or model.
        across, input_shape: see `onnx_esn.passes.equalization.Equalize`.
    """
    loaded = opened_plain(model)
    step = Equalize(across=across, input_shape=named_shapes(loaded, input_shape))
    return _changed(step, loaded)


@from_file
def annotate(model: Model, *, input_shape: InputShape | None = None) -> PassResult:
    """Write costs into the metadata; see `onnx_esn.passes.annotation.Annotate`."""
    loaded = opened_plain(model)
    return Annotate(named_shapes(loaded, input_shape))(loaded)


def write_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    source: Model,
    *,
    external_data: bool | None = None,
) -> Path:
    """Write a result once onnxruntime has loaded it; nothing is left behind on failure.

    A model that onnxruntime could not load in the first place (custom operators) is only checked.

    Args:
        model: the result.
        path: the target.
        source: the model it was made from.
        external_data: whether weights go to a file of their own, see `save_model`; None: as the
            source has it, where that is a path, and above 2 GiB.

    Raises:
        VerificationError: onnxruntime loads the source but not the result.
        OutputError: the file cannot be written.
    """

    source = plain_source(source)

    def loads(written: Path) -> None:  # the file: to hand over bytes takes the model once more
        try:
            loadable = runnable(model)
            # A large model would be held once more, laid out for its kernels.
            Session(written if loadable is model else loadable, lean=_is_large(model))
        except InferenceError as error:
            try:
                Session(source if isinstance(source, onnx.ModelProto) else Path(source))
            except InferenceError:
                return
            why = str(error).replace(str(written), "it")
            raise VerificationError(
                f"{path}: onnxruntime does not load the result, nothing was written: {why}"
            ) from error

    if external_data is None:
        external_data = not isinstance(source, onnx.ModelProto) and has_data_outside(source)
    return save_model(model, path, loads, external=external_data)


def _is_large(model: onnx.ModelProto) -> bool:
    return initializer_bytes(model) > _LARGE


def _changed(step: Pass, model: onnx.ModelProto) -> PassResult:
    """Run a pass that changes figures: an annotation of the input no longer holds."""
    result = step(model)
    if result.modified:
        strip_annotation(result.model)  # nobody else has it
    return result


def named_shapes(
    model: onnx.ModelProto, shape: InputShape | None
) -> Mapping[str, Sequence[int]] | None:
    """Shapes by input name; a single shape is that of the only input."""
    if shape is None or isinstance(shape, Mapping):
        return shape
    names = [spec.name for spec in input_specs(model)]
    if len(names) != 1:
        raise OptionError(
            f"the model has {len(names)} inputs; give a shape for each: "
            + ", ".join(f"{n}:1,3,224,224" for n in names)
        )
    return {names[0]: tuple(shape)}
