"""The weights of a checkpoint, by layer."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onnx_esn.errors import ModelError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.numerics.row_blocks import Reals, all_finite

_MOST = 1e100


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer.

    Attributes:
        weight: name of the tensor.
        shape: (M, K): filters, and weights of each.
        read: gives them, in the type of the file; those of a large model are read anew.
    """

    weight: str
    shape: tuple[int, int]
    read: Callable[[], Reals]

    @property
    def W(self) -> Reals:  # noqa: N802
        """Filters (M, K)."""
        return self.read()


def read_checkpoint(path: Path) -> dict[str, LayerWeights]:
    """Return the weights of a file by the names of its layers.

    Of an ONNX file the layers that `inspect` shows; a weight that several share counts at the
    first. Of an .npz file all arrays of floats with two axes or more, the first of which counts
    filters, by their own names.

    Raises:
        ModelError: the file cannot be read, has no weights, or one is not finite.
    """
    found = _of_arrays(path) if path.suffix.lower() == ".npz" else _of_model(path)
    if not found:
        raise ModelError(f"{path}: has no weights (arrays of floats with two axes or more)")
    for name, layer in found.items():
        W = layer.W
        if not all_finite(W):
            raise ModelError(f"{path}: the weights of {name} are not finite (NaN or infinity)")
        if max(float(W.max(initial=0.0)), -float(W.min(initial=0.0))) > _MOST:
            raise ModelError(f"{path}: the weights of {name} are too large to be squared")
    return found


def _of_model(path: Path) -> dict[str, LayerWeights]:
    model = standard_form(load_model(path, outside=True))
    constants = Constants(model)
    found: dict[str, LayerWeights] = {}
    seen: set[str] = set()
    for layer in find_layers(model, constants, Facts(sizes={})):
        if layer.source not in seen:
            seen.add(layer.source)
            shape = (layer.filters, layer.parameters // layer.filters)
            found[layer.name] = LayerWeights(layer.source, shape, partial(_read, layer, constants))
    return found


def _read(layer: Layer, constants: Constants) -> Reals:
    return layer.as_filters(constants.value(layer.weight, keep=False))


def _of_arrays(path: Path) -> dict[str, LayerWeights]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: Mapping[str, np.ndarray] = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"{path}: cannot be read as .npz ({error})") from error
    found = {}
    for name, a in arrays.items():
        if a.dtype.kind == "f" and a.ndim > 1 and a.size:
            W = a.reshape(a.shape[0], -1)
            found[name] = LayerWeights(name, W.shape, partial(_same, W))
    return found


def _same(W: Reals) -> Reals:
    return W
