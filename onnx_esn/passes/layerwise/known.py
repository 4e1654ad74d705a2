"""What was observed of a model once, for all that ask for the same again."""

from __future__ import annotations

import hashlib
import pickle
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.shelf import new_file
from onnx_esn.temporary import writing_temporary


class Known:
    """Statistics of the model that all points of a sweep start from.

    They wait in temporary files, for they are as large as a model or larger. Only those of one
    model are kept: what is pruned or quantized differs from point to point.
    """

    def __init__(self) -> None:
        self._model = ""
        self._files: dict[str, Path] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "things": [(k, p.read_bytes()) for k, p in self._files.items()],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self._files = state["model"], {}
        for key, content in state["things"]:
            self._write(key, content)

    def __len__(self) -> int:
        return len(self._files)

    def is_of(self, model: onnx.ModelProto) -> None:
        """Say which model it is about."""
        self._model = _digest(model)

    def key(
        self, model: onnx.ModelProto, images: CalibrationSet, names: Collection[str], *how: Any
    ) -> str | None:
        """The key of what is observed of some layers on a set; None for another model."""
        digest = _digest(model)
        if not digest or digest != self._model:
            return None
        which = _which(images)
        return f"{digest} {which} {sorted(names)} {how}"

    def get(self, key: str) -> Any:
        """What was kept, anew each time; None if there is nothing."""
        path = self._files.get(key)
        return None if path is None else pickle.loads(path.read_bytes())

    def put(self, key: str, thing: Any) -> None:
        """Keep something; raises `OutputError` where there is no room."""
        self._write(key, pickle.dumps(thing, protocol=5))

    def _write(self, key: str, content: bytes) -> None:
        path = new_file(".known")
        with writing_temporary():
            path.write_bytes(content)
        weakref.finalize(self, path.unlink, missing_ok=True)
        self._files[key] = path


def _which(images: CalibrationSet) -> str:
    """Tells a part of the set, and views of it, from others."""
    indices, views = images.selection
    arrays = [indices] if views is None else [indices, views.image, views.number, views.mate]
    return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()


def _digest(model: onnx.ModelProto) -> str:
    try:
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    except Exception:  # too large for protobuf: which one it raises depends on its version
        return ""
