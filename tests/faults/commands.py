"""Commands as processes of their own, to be killed, and every verb that writes or takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration" / "fashion-mnist"

_IMAGES = ("--images", IMAGES)
_QUANTIZE = ("quantize", MODEL, "-o", "OUT/m.onnx", *_IMAGES, "--bits", 3)
_COMPRESS = ("compress", MODEL, "-o", "OUT/m.onnx", *_IMAGES, "--report", "OUT/r.json")

# Verbs that run the model or solve something, for seconds; OUT is where they write.
LONG: dict[str, tuple[Any, ...]] = {
    "recalibrate": ("recalibrate", MODEL, "-o", "OUT/m.onnx", *_IMAGES, "--batch-size", 4),
    "quantize": _QUANTIZE,
    "learning": (*_QUANTIZE, "--method", "qil", "--epochs", 4),
    "compress": (*_COMPRESS, "--target-cost", "5%"),
    "sweep": ("sweep", MODEL, "-o", "OUT", *_IMAGES),
    "evaluate": ("evaluate", MODEL, MODEL, *_IMAGES, "--batch-size", 1),
    "profile": ("profile", MODEL, "-o", "OUT/l.json", "--repeat", 2000),
    "analyze": ("analyze", MODEL, "-o", "OUT", *_IMAGES, "--batch-size", 4),
    "prune": ("prune", MODEL, "-o", "OUT/m.onnx", *_IMAGES, "--ratio", 0.3),
}


def arguments(verb: tuple[Any, ...], out: Path) -> list[str]:
    return [str(a).replace("OUT", str(out), 1) for a in verb]


def environment(temporary: Path, **more: str) -> dict[str, str]:
    """Temporary files go to a folder of the test's own; one thread for linear algebra."""
    own = {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **own, **more}


def start(args: list[str], temporary: Path, **more: Any) -> subprocess.Popen[str]:
    temporary.mkdir(exist_ok=True)
    env = environment(temporary, **more.pop("env", {}))
    command = [sys.executable, "-m", "onnx_esn", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, **more)


def hidden(folder: Path) -> list[str]:
    """What is left of unfinished work."""
    return sorted(p.name for p in folder.rglob(".*") if ".onnx-esn" in p.name)


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
