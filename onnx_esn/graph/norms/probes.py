"""The model under measurement: what the correction of each norm point is written to meanwhile.

A BatchNormalization has its running statistics. A layer gets a *probe* after it, an affine
y = scale·x + shift per channel, so that its correction acts on a tensor that is computed already
instead of running the layer again. `norm_rewriting` folds the probes away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.points import MEAN, VAR, NormPoint
from onnx_esn.graph.rewrite.surgery import edit


@dataclass(frozen=True)
class Handle:
    """Where the correction of a point sits in a model under measurement.

    Attributes:
        tensor: the tensor to measure.
        node: first output of the node that corrects it.
        names: initializers of running mean and variance, or of the probe's scale and shift.
        values: their values.
    """

    tensor: str
    node: str
    names: tuple[str, str]
    values: tuple[NDArray[np.generic], NDArray[np.generic]]


def insert_probes(
    model: onnx.ModelProto, points: Sequence[NormPoint]
) -> tuple[onnx.ModelProto, Mapping[str, Handle]]:
    """A model with a probe after each layer, and the handles of all points by `NormPoint.output`.

    The statistics of each BatchNormalization must be its own (`ModelWriter.own_statistics`).

    Raises:
        OperationError: GraphSurgeon cannot carry the model.
    """
    constants, handles = Constants(model), {}
    for point in points:
        if point.layer is None:
            inputs = model.graph.node[point.index].input
            names = inputs[MEAN], inputs[VAR]
            values = constants.value(names[0]), constants.value(names[1])
            handles[point.output] = Handle(point.tensor, point.output, names, values)
    layers = [point for point in points if point.layer is not None]
    if not layers:
        return model, handles
    with edit(model) as session:
        for point in layers:
            assert point.layer is not None
            dtype = constants.value(point.layer.source).dtype
            one, zero = np.ones(point.channels, dtype), np.zeros(point.channels, dtype)
            if point.axis == -2:
                one, zero = one[:, None], zero[:, None]
            scale = session.constant(f"{point.output}_probe_scale", one)
            shift = session.constant(f"{point.output}_probe_shift", zero)
            if point.axis == 1:
                mean = session.constant(f"{point.output}_probe_mean", zero)
                var = session.constant(f"{point.output}_probe_var", one)
                parameters = [scale, shift, mean, var]
                probe = session.insert_after(
                    point.output, "BatchNormalization", parameters, epsilon=0.0
                )
            else:
                probe = session.insert_after(point.output, "Mul", [scale])
                session.insert_after(point.output, "Add", [shift])
            handles[point.output] = Handle(
                probe.inputs[0].name, probe.outputs[0].name, (scale.name, shift.name), (one, zero)
            )
    return session.model, handles
