"""The verb `annotate`."""

from __future__ import annotations

from onnx_esn.passes.annotation import Annotate
from onnx_esn.passes.base import PassResult
from onnx_esn.verbs.opening import InputShape, Model, named_shapes, opened_plain
from onnx_esn.verbs.running import from_file


@from_file
def annotate(model: Model, *, input_shape: InputShape | None = None) -> PassResult:
    """Write costs into the metadata; see `onnx_esn.passes.annotation.Annotate`."""
    loaded = opened_plain(model)
    return Annotate(named_shapes(loaded, input_shape))(loaded)
