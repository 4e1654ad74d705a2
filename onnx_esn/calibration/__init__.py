"""Images to batches to statistics; the only package that runs onnxruntime."""

from __future__ import annotations

from .calibration_set import Batch, CalibrationSet
from .image_set import Source, open_set
from .latency import Latency, median_latency
from .outputs import collect_outputs, iterate_outputs
from .recipe import Recipe, default_recipe, load_recipe
from .session import Session
from .tensor_spec import TensorSpec, input_specs

__all__ = [
    "Batch",
    "CalibrationSet",
    "Latency",
    "Recipe",
    "Session",
    "Source",
    "TensorSpec",
    "collect_outputs",
    "default_recipe",
    "input_specs",
    "iterate_outputs",
    "load_recipe",
    "median_latency",
    "open_set",
]
