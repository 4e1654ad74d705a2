"""The verbs that take one step: a pass with its files opened, checked and written."""

from onnx_esn.verbs.methods import METHODS, ON_IMAGES, check_method, learning
from onnx_esn.verbs.opening import (
    InputShape,
    Model,
    Progress,
    named_shapes,
    open_images,
    opened,
    opened_plain,
)
from onnx_esn.verbs.pruning import prune
from onnx_esn.verbs.quantizing import quantize
from onnx_esn.verbs.running import from_file
from onnx_esn.verbs.single_passes import annotate, convert, equalize, recalibrate
from onnx_esn.verbs.writing import write_model

__all__ = [
    "METHODS",
    "ON_IMAGES",
    "InputShape",
    "Model",
    "Progress",
    "annotate",
    "check_method",
    "convert",
    "equalize",
    "from_file",
    "learning",
    "named_shapes",
    "open_images",
    "opened",
    "opened_plain",
    "prune",
    "quantize",
    "recalibrate",
    "write_model",
]
