"""Reading and writing model files: whole, checked, never half-written."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx.external_data_helper import uses_external_data

from onnx_esn.errors import ModelError, OutputError, VerificationError
from onnx_esn.graph.external_data import write_with_data
from onnx_esn.graph.model_source import ModelSource, plain_source
from onnx_esn.graph.stored import taken_apart
from onnx_esn.outside import (
    any_outside,
    brought_inside,
    is_outside,
    leave_outside,
    stored_bytes,
)

log = logging.getLogger(__name__)

# protobuf refuses to serialise 2 GiB; leave room for the graph around the weights.
_SINGLE_FILE_LIMIT = 2**31 - 2**24


def load_model(source: ModelSource, *, outside: bool = False) -> onnx.ModelProto:
    """Load a model with its external data; a `ModelProto` is returned as it is.

    Args:
        source: path or model.
        outside: leave large external weights in their file, see `graph.outside`.

    Raises:
        ModelError: what is given is no model; the file is missing, not an ONNX model, or its
            external data is incomplete.
    """
    source = plain_source(source)
    if isinstance(source, onnx.ModelProto):
        return source
    path = Path(source)
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, not an ONNX file")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=not outside)
        if outside:
            leave_outside(model, path.parent)
    except DecodeError as error:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one ({_first_line(error)}); export it again"
        ) from error
    except PermissionError as error:
        raise ModelError(f"{path}: permission denied") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path}: its external data cannot be read: {_first_line(error)}"
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: its graph has no nodes")
    if not model.opset_import:
        raise ModelError(f"{path}: not a complete ONNX model: it imports no operator set")
    return model


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Run the full ONNX checker, on large tensors one by one: it takes a model twice more.

    Raises:
        ModelError: the model is invalid; the message carries the checker's first line.
    """
    try:
        light, large = taken_apart(model)
        if _bytes(light, large) < _SINGLE_FILE_LIMIT:
            onnx.checker.check_model(light, full_check=False)
            for tensor in (t for t in large if not is_outside(t)):
                onnx.checker.check_tensor(tensor)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name}: invalid ONNX model: {_first_line(error)}") from error


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    check: Callable[[Path], None] = lambda written: None,
    *,
    external: bool = False,
) -> Path:
    """Write `model` beside its target, check what was written, then rename it into place.

    Above 2 GiB, or where it is asked for, the weights go to `<name>.data`, referred to by a
    relative path.

    Args:
        model: the model.
        path: the target.
        check: looks at what was written; nothing is left behind if it raises.
        external: write weights beside the model at any size.

    Raises:
        VerificationError: the written file does not pass the ONNX checker; the target is untouched.
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    data = f"{Path(path).name}.data"
    with _beside(path) as (target, written):
        if not external and any_outside(model):
            total = sum(stored_bytes(t) for t in model.graph.initializer)
            external = total >= _SINGLE_FILE_LIMIT
            model = model if external else brought_inside(model)
        if not external and _bytes(*taken_apart(model)) < _SINGLE_FILE_LIMIT:
            written.write_bytes(model.SerializeToString(deterministic=True))
        else:
            write_with_data(model, written, written.with_name(data))
        try:
            onnx.checker.check_model(written, full_check=False)
        except onnx.checker.ValidationError as error:
            raise VerificationError(
                f"{target}: the result is not a valid ONNX model, nothing was written: "
                f"{_first_line(error)}"
            ) from error
        check(written)
        if written.with_name(data).exists():
            written.with_name(data).replace(target.with_name(data))
    return target


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text file beside its target, then rename it into place.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    return write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write bytes beside their target, then rename them into place; raises `OutputError`."""
    with _beside(path) as (target, written):
        written.write_bytes(content)
    return target


def initializer_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers as stored (external data included once loaded)."""
    return sum(
        stored_bytes(t)
        for t in model.graph.initializer
        if is_outside(t) or not uses_external_data(t)
    )


def _bytes(light: onnx.ModelProto, large: Sequence[onnx.TensorProto]) -> int:
    """Size of a model that was taken apart: protobuf serialises what it is asked the size of."""
    return int(light.ByteSize()) + sum(int(tensor.ByteSize()) for tensor in large)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _beside(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Path]]:
    """(target, file to write): the file takes the target's place when the block ends well."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file to write")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: its folder {target.parent} does not exist; create it first")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            written = Path(scratch) / target.name
            yield target, written
            written.replace(target)
    except EncodeError as error:
        raise OutputError(f"{target}: cannot be serialised: {_first_line(error)}") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
