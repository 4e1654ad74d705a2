"""What has to be alike on two machines for the same bytes to come out."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from onnx_esn.version import __version__

# Those that compute, decode or write.
PACKAGES = ("numpy", "scipy", "onnx", "onnxruntime", "onnx-graphsurgeon", "pillow")
Versions = Mapping[str, str]


@functools.cache
def versions() -> Versions:
    """Of this process, by what it is."""
    found = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "onnx-esn": f"{__version__} ({_source()})",
    }
    return found | {name: _version(name) for name in PACKAGES}


@functools.cache
def processor() -> str:
    """The architecture, and a hash of the instructions that numpy found: kernels depend on them."""
    core: Any = np._core if hasattr(np, "_core") else np.core
    umath = core._multiarray_umath
    features = sorted(name for name, there in umath.__cpu_features__.items() if there)
    digest = hashlib.sha256(" ".join(features).encode()).hexdigest()
    return f"{platform.machine()} {digest[:8]}"


def differences(mine: Versions, theirs: Versions) -> str:
    """Such as ``numpy 2.1.0 (here 2.4.6)``, or "" where all are alike."""
    return ", ".join(
        f"{name} {theirs.get(name, 'missing')} (here {version})"
        for name, version in mine.items()
        if theirs.get(name) != version
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # onnxruntime-gpu, say
        return str(getattr(sys.modules.get(name), "__version__", "missing"))


def _source() -> str:
    """A hash of this package: two checkouts may have the same version."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]
