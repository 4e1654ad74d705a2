"""Ready tensors as samples: load ``.npy``/``.npz`` and check that a model can take them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import ImageSetError, first_few

from .archives import check_archive
from .remote import Location, RemotePath
from .tensor_spec import TensorSpec, check_shape

Array = npt.NDArray[Any]
SINGLE_KEY, LABELS_KEY = "x", "y"
# Values looked at in one go, so that a memory-mapped file is never held whole.
_CHECK_VALUES = 2**22

# The last two: a single array under the name of an archive, from Python 3.11 on and before it.
UNREADABLE = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error),
    *(TypeError, AttributeError),
)


def load_arrays(path: Location) -> Array | dict[str, Array]:
    """The array of a ``.npy`` (memory-mapped), or the arrays of a ``.npz`` by name.

    Raises:
        ImageSetError: damaged, or holding Python objects.
    """
    try:
        file = path.fetched() if isinstance(path, RemotePath) else path
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ImageSetError(f"{path}: is no regular file")
        if path.suffix.lower() == ".npy":
            array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
            return array
        # Opened here, for numpy leaves a damaged archive open.
        check_archive(file)
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ImageSetError(f"{path}: no such folder or file") from error
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageSetError(f"{path}: is not a readable {path.suffix} file: {reason}") from error


def select_arrays(
    arrays: Array | Mapping[str, Array], inputs: Sequence[TensorSpec], origin: str
) -> tuple[dict[str, Array], Array | None]:
    """The checked array of each model input, and the labels ``y`` where they came along.

    Raises:
        ImageSetError: an input has no array, or an array does not fit: its shape, its type, its
            number of samples, a NaN, an infinity, a value too large for the input.
    """
    labels: Array | None = None
    if isinstance(arrays, np.ndarray):
        if len(inputs) != 1:
            names = first_few([spec.name for spec in inputs])
            raise ImageSetError(
                f"{origin}: one array cannot feed the {len(inputs)} model inputs ({names}); "
                "pass a .npz with one array for each, by name"
            )
        chosen = {inputs[0].name: arrays}
    else:
        chosen = {spec.name: _pick(arrays, spec, len(inputs) == 1, origin) for spec in inputs}
        if LABELS_KEY in arrays and LABELS_KEY not in chosen:
            labels = np.asarray(arrays[LABELS_KEY])
    for spec in inputs:
        _check(chosen[spec.name], spec, origin)
    counts = {name: len(array) for name, array in chosen.items()}
    if len(set(counts.values())) > 1:
        raise ImageSetError(f"{origin}: the arrays differ in their number of samples: {counts}")
    return chosen, labels


def _pick(arrays: Mapping[str, Array], spec: TensorSpec, single: bool, origin: str) -> Array:
    for key in (spec.name, SINGLE_KEY) if single else (spec.name,):
        if key in arrays:
            return np.asanyarray(arrays[key])
    allowed = f"'{spec.name}'" + (
        f" or '{SINGLE_KEY}'" if single and spec.name != SINGLE_KEY else ""
    )
    held = first_few(list(arrays)) or "nothing"
    raise ImageSetError(f"{origin}: no array named {allowed} for the model input; it holds {held}")


def _check(array: Array, spec: TensorSpec, origin: str) -> None:
    hint = ""
    if spec.fits((1, *array.shape)):
        hint = "; the first axis must count samples: reshape to 1 x …"
    if array.ndim == 0:
        raise ImageSetError(f"{origin}: a single number is not a set of samples for '{spec.name}'")
    check_shape(array.shape, spec, origin, hint)
    if not array.size:
        raise ImageSetError(f"{origin}: holds no samples (shape {array.shape})")
    have, want = _kind(array.dtype), _kind(spec.dtype)
    if have != want or have == "other":
        advice = "; scale and normalize the values first" if want == "float" else ""
        raise ImageSetError(
            f"{origin}: the array is {array.dtype}, but the model input '{spec.name}' is "
            f"{spec.dtype}{advice}"
        )
    if have == "float":
        _check_floats(array, spec, origin)
    elif have == "int" and not np.can_cast(array.dtype, spec.dtype):
        limits = np.iinfo(spec.dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise ImageSetError(
                f"{origin}: values {low} .. {high} do not fit the model input '{spec.name}' "
                f"of type {spec.dtype}"
            )


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.name == "bfloat16" or dtype.kind == "f":
        return "float"
    return {"i": "int", "u": "int", "b": "bool"}.get(dtype.kind, "other")


def _check_floats(array: Array, spec: TensorSpec, origin: str) -> None:
    step = max(1, _CHECK_VALUES // max(1, array[0].size))
    for start in range(0, len(array), step):
        part = np.asarray(array[start : start + step])
        with np.errstate(over="ignore"):
            cast = part.astype(spec.dtype)
        finite = np.isfinite(cast.reshape(len(part), -1)).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            what = f"a value beyond the range of {spec.dtype}"
            if not np.isfinite(part[row]).all():
                what = "a NaN" if np.isnan(part[row]).any() else "an infinity"
            raise ImageSetError(f"{origin}: sample {start + row} for '{spec.name}' holds {what}")
