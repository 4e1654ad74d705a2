"""The verb `prune`: whole filters, or positions of kernels, and then a refit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnx_esn.calibration import Recipe, Source
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.spatial.options import SpatialOptions, is_spatial
from onnx_esn.plans import PruningPlan, PruningRatios, SpatialPlan, load_pruning, load_spatial
from onnx_esn.plans.latency_model import LatencyModel
from onnx_esn.verbs.opening import (
    InputShape,
    Model,
    Progress,
    named_shapes,
    open_images,
    opened,
)
from onnx_esn.verbs.running import changed, from_file

log = logging.getLogger(__name__)


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
    views: int | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PassResult:
    """Remove filters, and refit what is left where images are given.

    Args:
        model: path or model.
        images, recipe: the calibration set.
        refit: whether weights and biases are refitted to the input model's outputs on the images,
            see `onnx_esn.passes.correcting.reconstruction.Reconstruct`.
        input_shape: sizes of dynamic axes.
        ratio, target_macs, plan, criterion, scope, round_to, min_width, only, exclude, exact,
            absorb, selection, target_params, target_memory, target_latency, latency_model,
            solver_time: see `onnx_esn.passes.pruning.prune.Prune`.
        granularity: "channel": whole filters; "spatial": positions of kernels, see
            `onnx_esn.passes.spatial.pruning.PruneSpatial`, which takes ratio, target_macs, scope,
            only and exclude. A plan says for itself.
        views: of each image that the refit sees, see `onnx_esn.quantize`.
        batch_size, threads, progress: for the images.
    """
    loaded = opened(model)
    spatial = load_spatial(plan)
    walk = WalkOptions(views=views, batch_size=batch_size, threads=threads, progress=progress)
    setting = Setting(None, None, tuple(only), tuple(exclude), walk)
    if is_spatial(granularity, plan is not None, spatial):
        options = SpatialOptions(ratio, target_macs, spatial, scope, setting.only, setting.exclude)
        options.refuse(
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
        setting = replace(setting, images=dataset, shapes=named_shapes(loaded, input_shape))
        return _positions_removed(loaded, options, setting)
    assert not isinstance(plan, SpatialPlan)
    decided = None if plan is None else load_pruning(plan)
    dataset = open_images(loaded, images, recipe)
    setting = replace(setting, images=dataset, shapes=named_shapes(loaded, input_shape))
    step = Prune(
        ratio=ratio,
        target_macs=target_macs,
        plan=decided,
        criterion=criterion,
        scope=scope,
        round_to=round_to,
        min_width=min_width,
        only=setting.only,
        exclude=setting.exclude,
        exact=exact,
        absorb=absorb,
        selection=selection,
        target_params=target_params,
        target_memory=target_memory,
        target_latency=target_latency,
        latency_model=latency_model,
        solver_time=solver_time,
        images=setting.images,
        input_shapes=setting.shapes,
        batch_size=batch_size,
    )
    return _filters_removed(loaded, step, setting, refit)


def _positions_removed(
    model: onnx.ModelProto, options: SpatialOptions, setting: Setting
) -> PassResult:
    """Remove kernel positions, and refit them where there are images."""
    step = options.step(setting.images, setting.shapes, setting.walk)
    result = changed(step, model)
    if not result.modified and (options.ratio or options.target_macs is not None):
        log.warning("nothing was removed: ask for more; the notes say what stays")
    return result


def _filters_removed(
    model: onnx.ModelProto, step: Prune, setting: Setting, refit: bool
) -> PassResult:
    """Remove filters, and refit what is left where that is wanted and there are images."""
    result = changed(step, model)
    asked = step.ratio or step.targets().given or isinstance(step.plan, PruningRatios)
    if not result.modified and asked:
        if result.details.get("filters_prunable"):
            why = "ask for more, or for less with round_to and min_width"
        else:
            why = "no filter may go; the notes say what keeps them"
        log.warning("nothing was removed: %s", why)
    lossy = asked or isinstance(step.plan, PruningPlan)
    if setting.images is None or not refit or not result.modified or not lossy:
        return result
    refitting = Reconstruct(
        setting.images, standard_form(model), setting.exclude, setting.only, setting.walk
    )
    again = refitting(result.model)
    details = {**result.details, **again.details}
    skipped = tuple(dict.fromkeys((*result.skipped, *again.skipped)))
    return PassResult(again.model, True, skipped, result.plan, details)
