"""What a result depends on, as a hash: the model, the samples, the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnx_esn.calibration.set_fingerprint import fingerprint_set
from onnx_esn.graph.stored import without_stored
from onnx_esn.outside import any_outside, tensor_values
from onnx_esn.version import __version__

__all__ = ["fingerprint_model", "fingerprint_options", "fingerprint_set"]


def fingerprint_model(model: onnx.ModelProto) -> str:
    """A hash of the whole model, weights included; those that are in a file are read for it."""
    if any_outside(model):
        light = without_stored(model)
        digest = hashlib.sha256(light.SerializeToString(deterministic=True))
        for tensor in model.graph.initializer:
            value = tensor_values(tensor)
            digest.update(f"{tensor.name} {tensor.data_type} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def fingerprint_options(model: str, images: str, options: Mapping[str, Any]) -> str:
    """The key of one result: both hashes, the options, and the version of this package."""
    document = {
        "model": model,
        "images": images,
        "options": dict(options),
        "version": __version__,
    }
    text = json.dumps(document, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
