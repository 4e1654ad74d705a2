"""The page of the Python API, from the docstrings of what `onnx_esn` exports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
INTRODUCTION = """# Python API

Every name that `onnx_esn` exports, from its docstring. [Python](python.md) shows how they are used.

"""
PARTS = {
    "Verbs": str.islower,
    "Passes, plans and results": lambda name: not name.islower(),
}


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    sys.path.insert(0, str(ROOT))
    import onnx_esn

    names = [name for name in onnx_esn.__all__ if not name.startswith("_")]
    text = INTRODUCTION
    for heading, belongs in PARTS.items():
        text += f"## {heading}\n\n"
        for name in sorted(filter(belongs, names)):
            text += f"::: {_path(onnx_esn._HOME[name], name)}\n\n"
    files.append(File.generated(config, "api.md", content=text))
    return files


def _path(home: str, name: str) -> str:
    """Dotted path of an exported name; where a module has the same name, of what is in it."""
    same = ROOT.joinpath("onnx_esn", *home.split("."), f"{name}.py").exists()
    return f"onnx_esn.{home}.{name}" + (f".{name}" if same else "")
