"""The verb `quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from onnx_esn.calibration import Recipe, Source
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.quantizing.requantization import open_weights, with_opening
from onnx_esn.passes.rotating.rotation import Rotate
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.storing import Storing
from onnx_esn.plans import QuantizationPlan, load_plan
from onnx_esn.plans.bit_policy import BitPolicy
from onnx_esn.verbs.methods import learning
from onnx_esn.verbs.opening import (
    InputShape,
    Model,
    Progress,
    named_shapes,
    open_images,
    opened_plain,
)
from onnx_esn.verbs.quantization import Quantization
from onnx_esn.verbs.running import from_file
from onnx_esn.verbs.storing import stored


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
    rotate: bool = True,
    format: str = "fake",
    keep_opset: bool = False,
    opset: int | None = None,
    activations: str = "none",
    calibrator: str | None = None,
    input_shape: InputShape | None = None,
    views: int | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Quantize, remove filters that got 0 bits, and recalibrate where images are given.

    Args:
        model: path or model.
        bits, target_cost, plan, policy, only, exclude: see
            `onnx_esn.passes.quantizing.quantization.Quantize`. A policy is what `trace` writes.
        images, recipe: calibration set; None quantizes without any.
        reference: what to recalibrate towards; None: the input model.
        cost_of: the model a percentage in `target_cost` refers to; None: the input model.
        quantizer: "mid-rise", or "mid-tread" for comparison; a plan says for itself.
        method: "compensated": bits by measured losses, codes that make each other's errors good;
            the default with images. "nearest": plain rounding, then recalibration. "aciq":
            analytical clipping, see `onnx_esn.passes.quantizing.aciq.Aciq`; the images change
            nothing. "qil": compensated, then codes, steps and biases learned on the images.
        epochs, start_bits, seed: of learning, see `onnx_esn.passes.learning.options.LearnOptions`.
        effort: "fast", "balanced" or "thorough", for a compensated `target_cost`.
        requantize: quantize weights that are integers already once more, see
            `onnx_esn.passes.quantizing.requantization`; without it they are refused.
        rotate: with images, first bring linear tensors into the basis that few bits suit, see
            `onnx_esn.rotate`, and another `reference` with it. A plan says for itself.
        format: "fake": float weights on the grid; "qdq": integers behind DequantizeLinear;
            "qonnx": Quant nodes.
        keep_opset, opset: see `onnx_esn.passes.export.Export`.
        activations: "none", "int8", "int16", or "uint2" to "uint8": quantize the activations too,
            on the images, see `onnx_esn.QuantizeActivations`; implies format "qdq". Their ranges
            are calibrated, of method "qil" learned, or those of the plan.
        calibrator: see there.
        input_shape: sizes of dynamic axes.
        views: of each image that compensation sees: the image and parts of it, see
            `onnx_esn.calibration.views`; None: 4 where there are 128 images or fewer, else 1.
        batch_size, threads, progress: for the images.
    """
    storing = Storing(format, keep_opset, opset, activations, calibrator)
    plan = None if plan is None else load_plan(plan, QuantizationPlan)
    storing.check(images, plan)
    source = opened_plain(model)
    opening = open_weights(source, requantize=requantize, only=only, exclude=exclude, plan=plan)
    loaded = opening.model
    shapes = named_shapes(loaded, input_shape)
    turned = PassResult(loaded, False)
    if plan is not None and plan.rotation is not None:
        noted = plan.rotation
        turned = Rotate(seed=noted.seed, layers=noted.layers, input_shape=shapes)(loaded)
        loaded = turned.model
    dataset = open_images(loaded, images, recipe)
    walk = WalkOptions(views=views, batch_size=batch_size, threads=threads, progress=progress)
    setting = Setting(dataset, shapes, tuple(only), tuple(exclude), walk)
    towards = loaded if reference is None else opened_plain(reference, outside=True)
    method = method or ("nearest" if dataset is None or plan is not None else "compensated")
    quantization = Quantization(
        method=method,
        bits=bits,
        target_cost=target_cost,
        plan=plan,
        policy=policy,
        effort=effort,
        quantizer=quantizer,
        learn=learning(method, epochs, start_bits, seed, threads, progress),
        storing=storing,
        towards=towards,
        cost_of=source if cost_of is None and opening.modified else cost_of,
        rotate=rotate,
    )
    done = quantization(loaded, setting)
    return stored(storing, setting, with_opening(with_opening(done, turned), opening))
