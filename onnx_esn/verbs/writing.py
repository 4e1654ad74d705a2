"""Write a result, once onnxruntime has loaded it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from onnx_esn.calibration import Session
from onnx_esn.errors import InferenceError, VerificationError
from onnx_esn.graph.external_data import has_data_outside
from onnx_esn.graph.model_file import initializer_bytes, save_model
from onnx_esn.graph.model_source import plain_source
from onnx_esn.passes.export import runnable
from onnx_esn.verbs.opening import Model

_LARGE = 1 << 24  # bytes


def write_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    source: Model,
    *,
    external_data: bool | None = None,
) -> Path:
    """Write a result once onnxruntime has loaded it; nothing is left behind on failure.

    A model that onnxruntime could not load in the first place (custom operators) is only checked.

    Args:
        model: the result.
        path: the target.
        source: the model it was made from.
        external_data: whether weights go to a file of their own, see `save_model`; None: as the
            source has it, where that is a path, and above 2 GiB.

    Raises:
        VerificationError: onnxruntime loads the source but not the result.
        OutputError: the file cannot be written.
    """

    source = plain_source(source)

    def loads(written: Path) -> None:  # the file: to hand over bytes takes the model once more
        try:
            loadable = runnable(model)
            # A large model would be held once more, laid out for its kernels; and what the model
            # computes of its constants is not to be computed here.
            Session(
                written if loadable is model else loadable, lean=_is_large(model), folding=False
            )
        except InferenceError as error:
            try:
                Session(source if isinstance(source, onnx.ModelProto) else Path(source))
            except InferenceError:
                return
            why = str(error).replace(str(written), "it")
            raise VerificationError(
                f"{path}: onnxruntime does not load the result, nothing was written: {why}"
            ) from error

    if external_data is None:
        external_data = not isinstance(source, onnx.ModelProto) and has_data_outside(source)
    return save_model(model, path, loads, external=external_data)


def _is_large(model: onnx.ModelProto) -> bool:
    return initializer_bytes(model) > _LARGE
