"""Format `fake`: the model as `quantize` makes it, float weights on the grid."""

from __future__ import annotations

import onnx

from onnx_esn.formats.options import FormatOptions
from onnx_esn.formats.written import Written


def write(model: onnx.ModelProto, options: FormatOptions | None = None) -> Written:
    """Return a copy of the model; the options say nothing to this format."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return Written(copy, ())
