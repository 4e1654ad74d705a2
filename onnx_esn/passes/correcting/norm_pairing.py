"""Which tensor of the reference stands for which norm point of a compressed model.

Passes keep the names of nodes and tensors, so names pair them. A pruned model says in its metadata,
under `KEPT_KEY`, which filters of the original each node has left: a JSON object
``{node name: [indices]}``, a line for each layer and BatchNormalization that lost some.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration.point_moments import Point
from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.index_runs import unpacked
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.norms.points import NormPoint, find_norm_points
from onnx_esn.graph.rewrite.rotated import in_other_basis
from onnx_esn.passes.base import Skipped

KEPT_KEY = "onnx_esn.kept"
OTHER_BASIS = "its channels are in another basis than the reference's (rotate)"
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
# Scale and shift of a BatchNormalization are "the same" when they differ by less: float16 rounds.
_SAME = 2e-3


@dataclass(frozen=True)
class Normalization:
    """Parameters (C,) of a BatchNormalization: γ, β, running mean and variance, ε."""

    scale: Floats
    shift: Floats
    mean: Floats
    var: Floats
    eps: float


@dataclass(frozen=True)
class Pair:
    """What stands for a norm point in the reference.

    Attributes:
        point: the tensor of the reference to measure.
        kept: which of its channels the compressed model has left.
        norm: the reference's parameters of those channels, for a BatchNormalization.
    """

    point: Point
    kept: Indices
    norm: Normalization | None


def pair_points(
    model: onnx.ModelProto,
    points: Sequence[NormPoint],
    reference: onnx.ModelProto,
    *,
    need: bool = True,
) -> tuple[dict[str, Pair], list[Skipped]]:
    """Pairs by `NormPoint.output`, and the points that have none.

    A layer pairs with the BatchNormalization after it, where the reference has kept that.

    Raises:
        OptionError: no point pairs though `need` says that one must, or the channels differ and
            the model does not say which of the reference's it has left.
        ModelError: the model's record of that is damaged.
    """
    theirs = _by_name(find_norm_points(reference).points)
    folded = {p.behind: p for p in theirs.values() if p.behind}
    records = kept_channels(model), kept_channels(reference)
    own, other = Constants(model), Constants(reference)
    turned = in_other_basis(model, reference)
    pairs: dict[str, Pair] = {}
    skipped: list[Skipped] = []
    for point in points:
        match = theirs.get(point.name) or theirs.get(f"→{point.output}")
        if point.layer is not None and (match is None or match.layer is None):
            match = folded.get(point.name, match)
        if match is None:
            reason = "the reference has no layer of this name"
        elif turned & {point.name, match.name}:
            reason = OTHER_BASIS
        elif point.layer is None and match.layer is not None:
            reason = "the reference has a layer of this name, but no BatchNormalization"
        else:
            kept = _kept(point, match, records)
            tensor = match.tensor if point.layer is None else match.output
            norm = _normalization(reference, match, other, kept) if point.layer is None else None
            if norm is None or _same_affine(norm, _normalization(model, point, own)):
                at = Point(point.name, tensor, match.axis, match.output)
                pairs[point.output] = Pair(at, kept, norm)
                continue
            reason = "its scale or shift differs from the reference's"
        skipped.append(Skipped(point.name, reason))
    if need and points and not pairs:
        raise OptionError(
            f"no layer of the model can be compared with the reference ({skipped[0].node}: "
            f"{skipped[0].reason}); give the model that this one was made from"
        )
    return pairs, skipped


def kept_channels(model: onnx.ModelProto) -> Mapping[str, Indices]:
    """By node: which filters of the original a pruned model has left; raises `ModelError`."""
    text = next((p.value for p in model.metadata_props if p.key == KEPT_KEY), "{}")
    try:
        return {
            str(k): np.asarray(unpacked(v), dtype=np.int64) for k, v in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the metadata entry {KEPT_KEY} is damaged: {error}") from error


def kept_positions(
    layer: Layer, twin: Layer, mine: Indices | None, theirs: Indices | None
) -> Indices | None:
    """Positions among the filters of its twin in the reference of those that a layer has left.

    Args:
        layer, twin: the layer in the model and in the reference.
        mine, theirs: what is recorded of both (`kept_channels`).

    Returns:
        None where the record does not say.
    """
    every = np.arange(twin.filters)
    if mine is None or (theirs is not None and np.array_equal(mine, theirs)):
        return every if layer.filters == twin.filters else None
    # A reference that was pruned itself has lost filters too.
    where = {int(f): i for i, f in enumerate(every if theirs is None else theirs)}
    if len(mine) != layer.filters or any(int(f) not in where for f in mine):
        return None
    return np.asarray([where[int(f)] for f in mine], np.int64)


def _by_name(points: Sequence[NormPoint]) -> dict[str, NormPoint]:
    """By node name where it is unique, and by output (after an arrow)."""
    found: dict[str, NormPoint] = {f"→{p.output}": p for p in points}
    names = [p.name for p in points]
    found.update((p.name, p) for p in points if names.count(p.name) == 1)
    return found


def _kept(
    point: NormPoint,
    match: NormPoint,
    records: tuple[Mapping[str, Indices], Mapping[str, Indices]],
) -> Indices:
    """Positions in the reference of the channels that the point has left."""
    every = np.arange(match.channels)
    mine = records[0].get(point.name)
    if mine is None and point.channels == match.channels:
        return every
    if mine is not None and mine.shape == (point.channels,):
        # A reference that was pruned itself has lost channels too.
        theirs = records[1].get(match.name, every)
        where = {int(channel): i for i, channel in enumerate(theirs)}
        if theirs.size == match.channels and all(int(c) in where for c in mine):
            return np.asarray([where[int(c)] for c in mine], dtype=np.int64)
    raise OptionError(
        f"{point.name}: has {point.channels} channels, the reference {match.channels}, and the "
        f"model does not record which ones it has left; give the model that this one was made "
        f"from, prune with this tool, or use --method reestimate without a reference"
    )


def _normalization(
    model: onnx.ModelProto, point: NormPoint, constants: Constants, kept: Indices | None = None
) -> Normalization:
    node = model.graph.node[point.index]
    eps = float(attributes(node).get("epsilon", 1e-5))
    scale, shift, mean, var = (
        constants.value(name).astype(np.float64)[... if kept is None else kept]
        for name in node.input[1:5]
    )
    return Normalization(scale, shift, mean, var, eps)


def _same_affine(a: Normalization, b: Normalization) -> bool:
    with np.errstate(invalid="ignore"):  # of infinities, which are not the same
        return all(
            bool((np.abs(x - y) <= _SAME * max(float(np.abs(x).max(initial=0)), 1e-6)).all())
            for x, y in ((a.scale, b.scale), (a.shift, b.shift))
        )
