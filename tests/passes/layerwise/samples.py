"""Images for tiny graphs, and models whose weights were spoilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.statistics import LayerStatistics
from tests.net import Net
from tests.oracles.equivalence import sizes_of

Array = npt.NDArray[Any]


def some_images(model: onnx.ModelProto, count: int = 7, seed: int = 0) -> CalibrationSet:
    """Random samples for each input of a model."""
    rng = np.random.default_rng(seed)
    sizes = sizes_of(model)
    feeds: dict[str, Array] = {}
    for spec in input_specs(model):
        shape = (count, *sizes[spec.name][1:])
        noise = rng.normal(size=shape) if spec.dtype.kind == "f" else np.ones(shape)
        feeds[spec.name] = noise.astype(spec.dtype)
    return open_set(feeds if len(feeds) > 1 else next(iter(feeds.values())), input_specs(model))


def smooth(count: int, channels: int = 3, size: int = 8, seed: int = 0) -> Array:
    """Images whose pixels and channels go together, as those of photographs do."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, channels, size + 4, size + 4))
    for _ in range(2):
        x = x[:, :, :-1] + x[:, :, 1:]
        x = x[..., :-1] + x[..., 1:]
        x = (x + 0.5 * x[:, ::-1]) / 3
    return x[:, :, :size, :size].astype(np.float32)


def with_a_head_on_three_levels(seed: int) -> onnx.ModelProto:
    """One head, as a detector has it, on feature maps of three sizes."""
    net = Net(3, 8, 8, seed=seed)
    first = net.weight(8, 8, 3, 3, fan_in=72, name="head.0")
    second = net.weight(5, 8, 1, 1, fan_in=8, name="head.1")
    x, level, outs = "x", 3, []
    for i in range(3):
        x = net.relu(net.conv(x, level, 8, name=f"level.{i}", strides=[1 + (i > 0)] * 2))
        level = 8
        y = net.relu(net.op("Conv", x, first, name=f"first.{i}", pads=[1, 1, 1, 1]))
        outs.append(net.op("Conv", y, second, name=f"second.{i}", kernel_shape=[1, 1]))
    return standard_form(net.model(*outs))


def with_a_recurrence(turns: int, *, between: bool = False) -> onnx.ModelProto:
    """One weight read in turns, each behind the one before; between them layers of their own."""
    net = Net(3, 8, 8)
    w = net.weight(8, 8, 3, 3, fan_in=72, name="turn")
    y = net.relu(net.conv("x", 3, 8, name="in"))
    for i in range(turns):
        y = net.relu(net.op("Conv", y, w, pads=[1, 1, 1, 1], name=f"turn.{i}"))
        if between:
            y = net.relu(net.conv(y, 8, 8, name=f"between.{i}"))
    return standard_form(net.model(net.head(y, 8, 5)))


def layer_of(model: onnx.ModelProto, name: str) -> Layer:
    return next(x for x in find_plain_layers(model) if x.name == name)


def layer_names(model: onnx.ModelProto) -> list[str]:
    return [x.name for x in find_plain_layers(model)]


def stored(model: onnx.ModelProto, name: str) -> Array:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def with_values(model: onnx.ModelProto, change: Callable[[str, Array], Array]) -> onnx.ModelProto:
    """A copy whose stored tensors are `change(name, value)`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        value = numpy_helper.to_array(tensor)
        new = np.asarray(change(tensor.name, value), value.dtype)
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return copy


def spoilt(model: onnx.ModelProto, *names: str, scale: float = 0.3, seed: int = 1):
    """A copy with noise on the weights of these layers."""
    rng = np.random.default_rng(seed)
    weights = {layer_of(model, name).weight for name in names}

    def change(name: str, value: Array) -> Array:
        if name not in weights:
            return value
        return value + scale * value.std() * rng.normal(size=value.shape)

    return with_values(model, change)


def as_it_is(statistics: LayerStatistics) -> npt.NDArray[np.float64]:
    """The solver that solves nothing."""
    return statistics.W


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """A copy that puts out these tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy
