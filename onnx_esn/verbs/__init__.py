"""The verbs that take one step: a pass with its files opened, checked and written.

Each is imported on first use: what one needs may take longer to import than another takes to run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_esn.verbs.annotating import annotate as annotate
    from onnx_esn.verbs.methods import METHODS as METHODS
    from onnx_esn.verbs.methods import ON_IMAGES as ON_IMAGES
    from onnx_esn.verbs.methods import check_method as check_method
    from onnx_esn.verbs.methods import learning as learning
    from onnx_esn.verbs.opening import InputShape as InputShape
    from onnx_esn.verbs.opening import Model as Model
    from onnx_esn.verbs.opening import Progress as Progress
    from onnx_esn.verbs.opening import named_shapes as named_shapes
    from onnx_esn.verbs.opening import open_images as open_images
    from onnx_esn.verbs.opening import opened as opened
    from onnx_esn.verbs.opening import opened_plain as opened_plain
    from onnx_esn.verbs.pruning import prune as prune
    from onnx_esn.verbs.quantizing import quantize as quantize
    from onnx_esn.verbs.running import from_file as from_file
    from onnx_esn.verbs.single_passes import convert as convert
    from onnx_esn.verbs.single_passes import equalize as equalize
    from onnx_esn.verbs.single_passes import recalibrate as recalibrate
    from onnx_esn.verbs.single_passes import rotate as rotate
    from onnx_esn.verbs.writing import write_model as write_model

_HOME = {
    "annotate": "annotating",
    "METHODS": "methods",
    "ON_IMAGES": "methods",
    "check_method": "methods",
    "learning": "methods",
    "InputShape": "opening",
    "Model": "opening",
    "Progress": "opening",
    "named_shapes": "opening",
    "open_images": "opening",
    "opened": "opening",
    "opened_plain": "opening",
    "prune": "pruning",
    "quantize": "quantizing",
    "from_file": "running",
    "convert": "single_passes",
    "equalize": "single_passes",
    "recalibrate": "single_passes",
    "rotate": "single_passes",
    "write_model": "writing",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
