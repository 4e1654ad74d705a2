"""The memory that it takes to prune a model, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx


def library_peak(path: str) -> int:
    """Most resident memory, in bytes, of `onnx.load` and `Prune(ratio=0.5)`."""
    return _peak(_pruned, path)


def command_peak(path: str) -> int:
    """The same of `onnx-esn prune --ratio 0.5`: also checked, loaded by onnxruntime, written."""
    return _peak(_commanded, path)


def _peak(prune: Callable[[str, str], object], path: str) -> int:
    """What a call adds to the resident memory of the process, at most.

    Imports and the pages of code that a first use brings in are the program's, not the model's, so
    the same is done to a tiny graph before. The model itself must not be touched by then: what the
    allocator keeps of that would be missing from the peak.
    """
    with tempfile.TemporaryDirectory() as folder:
        tiny, target = Path(folder) / "tiny.onnx", Path(folder) / "out.onnx"
        onnx.save(_tiny(), tiny)
        prune(str(tiny), str(target))
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        base = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        prune(path, str(target))
        return _status("VmHWM") - base


def _pruned(source: str, target: str) -> None:
    from onnx_esn import Prune

    model = onnx.load(source)
    Prune(ratio=0.5)(model)


def _commanded(source: str, target: str) -> None:
    from onnx_esn.cli import cli

    cli(["prune", source, "-o", target, "--ratio", "0.5"], standalone_mode=False)


def _tiny() -> onnx.ModelProto:
    from tests.net import Net

    net = Net(3, 16, 16)
    y = net.conv_bn_relu("x", 3, 8)
    y = net.relu(net.op("Add", y, net.conv(y, 8, 8)))
    return net.model(net.head(y, 8))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
