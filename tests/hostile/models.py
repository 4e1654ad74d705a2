"""Hostile models by hand, one for each way in which a file can be wrong on purpose.

Each function gets a folder of its own and returns the path of the model in it.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from tests.hostile.verbs import sound_model


@dataclass(frozen=True)
class Hostile:
    """A hostile model, and what a refusal has to say.

    Attributes:
        build: writes it, see above.
        says: part of the error of every verb; "" where it may be read (it is odd, not wrong).
    """

    build: Callable[[Path], Path]
    says: str


HOSTILE: dict[str, Hostile] = {}


def hostile(says: str = ""):
    def register(build):
        assert build.__name__ not in HOSTILE
        HOSTILE[build.__name__] = Hostile(build, says)
        return build

    return register


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def written(content: bytes, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


# What is no model at all.


@hostile("not an ONNX model")
def empty(folder):
    return written(b"", folder)


@hostile("not an ONNX model")
def text(folder):
    return written(b"ir_version: 8\ngraph { node { op_type: 'Relu' } }\n" * 20, folder)


@hostile("not an ONNX model")
def pickled(folder):
    return written(pickle.dumps({"weights": list(range(1000))}), folder)


@hostile("not an ONNX model")
def archive(folder):
    path = folder / "model.onnx"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("model.onnx", sound_model().SerializeToString())
    return path


@hostile("not an ONNX model")
def picture(folder):
    return written(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, folder)


@hostile("not an ONNX model")
def zeros(folder):
    return written(bytes(1 << 16), folder)


@hostile("not an ONNX model")
def another_protobuf(folder):
    return written(sound_model().graph.initializer[0].SerializeToString(), folder)


@hostile("truncated")
def truncated(folder):
    return written(sound_model().SerializeToString()[:-700], folder)


@hostile("is a folder")
def a_folder(folder):
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@hostile("no regular file")
def a_pipe(folder):
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@hostile("no regular file")
def a_device(folder):
    (folder / "model.onnx").symlink_to("/dev/zero")
    return folder / "model.onnx"


@hostile("no such file")
def a_link_to_itself(folder):
    (folder / "model.onnx").symlink_to("model.onnx")
    return folder / "model.onnx"
