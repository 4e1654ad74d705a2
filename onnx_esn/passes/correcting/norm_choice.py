"""Which norm points of a model can be corrected, by which method, and why not the others."""

from __future__ import annotations

from typing import Literal

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.graph.norms.points import NormPoint, find_norm_points
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.correcting.norm_pairing import Pair, pair_points

Method = Literal["match", "reestimate"]


def choose_points(
    model: onnx.ModelProto, reference: onnx.ModelProto | None, method: Method
) -> tuple[list[NormPoint], dict[str, Pair], list[Skipped]]:
    """The points to correct, what stands for them in the reference, and what is left alone.

    Raises:
        OptionError: nothing is left to correct; and see `pair_points`.
        ModelError: see `pair_points`.
    """
    found = find_norm_points(model)
    skipped = [Skipped(name, reason) for name, reason in found.skipped]
    norms = [point for point in found.points if point.layer is None]
    layers = [point for point in found.points if point.layer is not None]
    pairs: dict[str, Pair] = {}
    if reference is None:
        reason = "no BatchNormalization follows it, and there is no reference to match"
        skipped += [Skipped(point.name, reason) for point in layers]
    else:
        compared = layers if method == "reestimate" else list(found.points)
        # Re-estimation can do without the layers where there is BatchNormalization.
        need = method == "match" or not norms
        pairs, unpaired = pair_points(model, compared, reference, need=need)
        skipped += unpaired
    free = {point.output for point in norms} if method == "reestimate" else set()
    points = [point for point in found.points if point.output in pairs or point.output in free]
    if not points:
        raise OptionError(
            "nothing can be recalibrated: the model has no BatchNormalization"
            + ("; give the float model as --reference" if layers and reference is None else "")
            + (f" ({skipped[0].node}: {skipped[0].reason})" if skipped else "")
        )
    return points, pairs, skipped
