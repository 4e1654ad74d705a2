"""Reading and writing model files: whole, checked, never half-written."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.json_format import ParseError as JsonError
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.text_format import ParseError as TextError
from onnx import serialization
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data
from onnx.parser import ParseError

from onnx_esn.errors import ModelError, OutputError, VerificationError
from onnx_esn.graph.external_data import write_with_data
from onnx_esn.graph.intake import check_intake
from onnx_esn.graph.intake.external import check_external
from onnx_esn.graph.intake.tensors import check_tensors
from onnx_esn.graph.intake.walk import all_tensors
from onnx_esn.graph.model_source import ModelSource, plain_source
from onnx_esn.graph.stored import stand_in, taken_apart
from onnx_esn.outside import (
    any_outside,
    brought_inside,
    forget_place,
    is_outside,
    leave_outside,
    stored_bytes,
)
from onnx_esn.targets import beside

log = logging.getLogger(__name__)

_NO_MODEL = (DecodeError, TextError, JsonError, ParseError, UnicodeDecodeError)
# protobuf refuses to serialise 2 GiB; leave room for the graph around the weights.
SINGLE_FILE_LIMIT = 2**31 - 2**24


def load_model(source: ModelSource, *, outside: bool = False) -> onnx.ModelProto:
    """Load a model with its external data; a `ModelProto` is returned as it is.

    Args:
        source: path or model.
        outside: leave large external weights in their file, see `onnx_esn.outside`.

    Raises:
        ModelError: what is given is no model; the file is missing, not an ONNX model, or its
            external data is incomplete.
    """
    source = plain_source(source)
    if isinstance(source, onnx.ModelProto):
        return source
    path = Path(source)
    check_file(path)
    try:
        model = _parsed(path)
    except _NO_MODEL as error:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one, or nested too deep "
            f"({_first_line(error)}); export it again"
        ) from error
    except PermissionError as error:
        raise ModelError(f"{path}: permission denied") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    check_external(model, path.parent, str(path))
    try:
        if outside:
            leave_outside(model, path.parent)
        _read_external(model, path.parent)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path}: its external data cannot be read: {_first_line(error)}"
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: its graph has no nodes")
    if not model.opset_import:
        raise ModelError(f"{path}: not a complete ONNX model: it imports no operator set")
    return model


def _parsed(path: Path) -> onnx.ModelProto:
    """The model in a file; onnx takes the endings of some names for a text format."""
    if serialization.registry.get_format_from_file_extension(path.suffix) in (None, "protobuf"):
        return onnx.load(path, load_external_data=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that such a format is experimental
            return onnx.load(path, load_external_data=False)
    except _NO_MODEL:
        return onnx.load(path, format="protobuf", load_external_data=False)


def check_file(path: Path) -> None:
    """Refuse what is no regular file (a pipe would be waited for); raises `ModelError`."""
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, not an ONNX file")
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: no regular file; copy the model to one")


def _read_external(model: onnx.ModelProto, folder: Path) -> None:
    """Read what is in other files and not left there."""
    for tensor in all_tensors(model):
        if uses_external_data(tensor) and not is_outside(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            forget_place(tensor)


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Check what may cost more than it should, then run the ONNX checker.

    It takes a model twice more, so it is shown one without the values of large tensors: that those
    are what they should be has been seen before.

    Raises:
        ModelError: the model is invalid; the message carries the checker's first line.
    """
    check_intake(model, name)
    try:
        light, _ = taken_apart(model)
        _run_checker(light)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name}: invalid ONNX model: {_first_line(error)}") from error


def _run_checker(light: onnx.ModelProto) -> None:
    """Check a model that was taken apart; raises `onnx.checker.ValidationError`."""
    for tensor in light.graph.initializer:
        if is_outside(tensor):  # at a place that only we know
            tensor.CopyFrom(stand_in(tensor, tensor.name, [0] * len(tensor.dims)))
    onnx.checker.check_model(light, full_check=False)


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    check: Callable[[Path], None] = lambda written: None,
    *,
    external: bool = False,
) -> Path:
    """Check `model`, write it beside its target, check the file, then rename it into place.

    Above 2 GiB, or where it is asked for, the weights go to `<name>.<hash of them>.data`, referred
    to by a relative path: no model ever meets the weights of another one, see `companions`.

    Args:
        model: the model.
        path: the target.
        check: looks at the file that was written; nothing is left behind if it raises.
        external: write weights beside the model at any size.

    Raises:
        VerificationError: the model does not pass the ONNX checker; the target is untouched.
        OutputError: the folder is missing or not writable, the disk is full, or another process
            is writing the target.
    """
    target = Path(path)
    light, large = taken_apart(model)
    external = external or _bytes(light, large) >= SINGLE_FILE_LIMIT
    try:
        check_tensors(model, str(target))
        _run_checker(light)
    except (ModelError, onnx.checker.ValidationError) as error:
        raise VerificationError(
            f"{target}: the result is not a valid ONNX model, nothing was written: "
            f"{_first_line(error)}"
        ) from error
    with _beside(target) as written:
        if external:
            write_with_data(model, written)
        else:
            whole = brought_inside(model) if any_outside(model) else model
            written.write_bytes(whole.SerializeToString(deterministic=True))
        check(written)
    return target


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text file beside its target, then rename it into place.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    return write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write bytes beside their target, then rename them into place; raises `OutputError`."""
    target = Path(path)
    with _beside(target) as written:
        written.write_bytes(content)
    return target


def initializer_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initializers as stored (external data included once loaded)."""
    return sum(stored_bytes(t) for t in model.graph.initializer if _has_values(t))


def _has_values(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor has its values inside, or in a file that is known."""
    return is_outside(tensor) or not uses_external_data(tensor)


def _bytes(light: onnx.ModelProto, large: Sequence[onnx.TensorProto]) -> int:
    """Size of a model that was taken apart, but for the names of its tensors."""
    return int(light.ByteSize()) + sum(stored_bytes(t) for t in large if _has_values(t))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """See `targets.beside`."""
    try:
        with beside(target) as written:
            yield written
    except EncodeError as error:
        raise OutputError(f"{target}: cannot be serialised: {_first_line(error)}") from error
