"""compress: prune, refit, quantize, annotate, compare."""

from onnx_esn.pipeline.compressing import compress
from onnx_esn.pipeline.image_sets import HELD_OUT, LEAST_TO_SPLIT, image_sets
from onnx_esn.pipeline.result import CompressionResult, Stage

__all__ = [
    "HELD_OUT",
    "LEAST_TO_SPLIT",
    "CompressionResult",
    "Stage",
    "compress",
    "image_sets",
]
