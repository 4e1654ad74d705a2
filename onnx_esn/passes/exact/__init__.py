"""Remove channels whose removal changes nothing."""

from onnx_esn.passes.exact.redundant import RemoveRedundant as RemoveRedundant
