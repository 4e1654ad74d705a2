"""The output formats: `FORMATS` has the writer of each, by the name that `--format` takes."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_esn.formats import fake, qdq, qonnx
from onnx_esn.formats.options import FormatOptions
from onnx_esn.formats.written import Written

# A model whose weights lie on grids, and the options → the model as the format stores it. Whatever
# cannot be written exactly is left as floats, and said so; the model is untouched.
Writer = Callable[[onnx.ModelProto, FormatOptions], Written]

FORMATS: dict[str, Writer] = {"fake": fake.write, "qdq": qdq.write, "qonnx": qonnx.write}
