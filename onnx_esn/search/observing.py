"""What every point of a sweep observes of the input model, observed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.passes.allocation.efforts import judging_images
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.shards import Spread
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.quantizing.requantization import open_weights
from onnx_esn.passes.rotating.rotation import Rotate
from onnx_esn.pipeline import image_sets
from onnx_esn.verbs import InputShape, named_shapes, opened_plain


def observe_input(
    model: onnx.ModelProto,
    images: CalibrationSet,
    known: Known,
    spread: Spread,
    *,
    uniform: bool,
    apart: bool,
    pruning: bool = False,
    effort: str = "balanced",
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    requantize: bool = False,
    rotate: bool = True,
    input_shape: InputShape | None = None,
    views: int | None = None,
    batch_size: int = 64,
    threads: int | None = None,
) -> None:
    """Observe what `compress` with these options will ask for.

    Where it asks for something else after all, it observes that itself.

    Args:
        model, images, only, exclude, requantize, rotate, input_shape, views, batch_size, threads:
            see `compress`.
        known: gets what is found.
        spread: sums the shards of the images.
        uniform: for the same bits everywhere; False: for a cost.
        pruning: for a cost that is met by widths too, with this `effort`: some images judge.
        apart: whether the closing figures have a set of their own.

    Raises:
        OnnxEsnError: see `compress`.
    """
    source = opened_plain(model)
    opened = open_weights(source, requantize=requantize, only=only, exclude=exclude).model
    shape = named_shapes(source, input_shape)
    if rotate:
        turn = Rotate(only=tuple(only), exclude=tuple(exclude), input_shape=shape)
        opened = turn(opened).model
    known.is_of(opened)
    dataset, _ = image_sets(source, images, images if apart else None, None, None)
    view = measured_view(opened, shape)
    options = WalkOptions(
        batch_size=batch_size, threads=threads, views=views, known=known, spread=spread
    )
    held = judging_images(dataset, effort, prune=pruning)
    images = options.views_of(dataset, held)
    names = [x.name for x in view.layers]
    judging = images.all_views_of(held).tolist()
    observe(opened, images, names, options, inputs=not uniform, held=judging)
