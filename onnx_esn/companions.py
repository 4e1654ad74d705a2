"""Files of weights beside a model: their names say what is in them.

So a model never meets the weights of another one, whenever a process is killed: one that is
replaced keeps its own until its place is taken.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from onnx_esn.file_search import holds


def data_name(name: str, digest: str) -> str:
    """What the weights of the model ``name`` are called; `digest`: of them, in hex."""
    return f"{name}.{digest[:16]}.data"


def companions(path: Path) -> list[str]:
    """Names of the files beside a model that are called as its weights would be."""
    own = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{16}}\.data")
    return [p.name for p in path.parent.iterdir() if own.fullmatch(p.name)]


def drop(path: Path, names: Iterable[str]) -> None:
    """Remove companions that neither the model nor another one in its folder refers to."""
    for name in set(names) & set(companions(path)):
        models = [path, *path.parent.glob("*.onnx")]
        if not any(mentions(model, name) for model in models):
            with contextlib.suppress(OSError):
                path.with_name(name).unlink()


def mentions(model: Path, name: str) -> bool:
    """Whether a file holds a name; one that cannot be read may."""
    if model.exists() and not model.is_file():  # a pipe would be waited for
        return False
    try:
        return holds(model, name.encode())
    except FileNotFoundError:
        return False
    except OSError:
        return True
