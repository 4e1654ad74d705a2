"""What other pruners make of a net, in a process of its own: MACs left, or what went wrong."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Result = dict[str, Any]
RATIO = 0.5


def torch_pruning(name: str, seed: int) -> Result:
    """Torch-Pruning on the module; its layers before the outputs are named to it as untouchable."""
    import torch
    import torch_pruning as tp

    from benchmarks.zoo.export import built
    from benchmarks.zoo.exporters import folded

    torch.set_num_threads(1)
    module, x = built(name, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        before = _exported_macs(module, x, path, folded)
        start = time.perf_counter()
        pruner = tp.pruner.MagnitudePruner(
            module,
            x,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            ignored_layers=_last_layers(module, x),
        )
        pruner.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            shapes = [tuple(y.shape) for y in module(x)]
        after = _exported_macs(module, x, path, folded)
        outputs = _declared_shapes(module, x, shapes, name, seed)
    return _result(before, after, seconds, outputs)


def _exported_macs(module: Any, x: Any, path: Path, export: Any) -> int:
    from benchmarks.zoo.measuring import macs_of

    export(module, x, path, False)
    return macs_of(onnx.load(path))


def _last_layers(module: Any, x: Any) -> list[Any]:
    """For each output, the last conv or linear layer that makes as many channels."""
    import torch
    from torch import nn

    order: list[Any] = []
    hooks = [
        m.register_forward_hook(lambda m, _i, _o: order.append(m))
        for m in module.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        outputs = module(x)
    for hook in hooks:
        hook.remove()
    found = []
    for y in outputs:
        for m in reversed(order):
            width = m.out_channels if isinstance(m, nn.Conv2d) else m.out_features
            if y.ndim > 1 and width in (y.shape[1], y.shape[-1]):
                found.append(m)
                break
    return found


def _declared_shapes(module: Any, x: Any, shapes: Any, name: str, seed: int) -> str:
    import torch

    from benchmarks.zoo.export import built

    original, x = built(name, seed)
    with torch.no_grad():
        expected = [tuple(y.shape) for y in original(x)]
    return "" if expected == shapes else f"outputs were {expected}, are {shapes}"


def onnxsim(path: str) -> Result:
    """onnxsim's structured pruning of the exported file."""
    from onnxsim import apply_structured_pruning

    model = onnx.load(path)
    start = time.perf_counter()
    pruned = apply_structured_pruning(model, RATIO)
    return _judged(onnx.load(path), pruned, time.perf_counter() - start)


def qonnx(path: str, python: str, limit: float) -> Result:
    """Qonnx's PruneChannels, in an environment of its own; the masks are ours."""
    script = Path(__file__).with_name("qonnx_prune.py")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pruned.onnx"
        start = time.perf_counter()
        command = [python, str(script), path, str(target), str(RATIO)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
        seconds = time.perf_counter() - start
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise RuntimeError(lines[-1][:300])
        return _judged(onnx.load(path), onnx.load(target), seconds)


def _judged(model: onnx.ModelProto, pruned: onnx.ModelProto, seconds: float) -> Result:
    """MACs left and whether onnxruntime runs it at the old sizes."""
    from benchmarks.zoo.judging import Runner
    from benchmarks.zoo.measuring import macs_of
    from tests.net import feeds_for

    sizes = {
        i.name: tuple(d.dim_value or 2 for d in i.type.tensor_type.shape.dim)
        for i in model.graph.input
    }
    feeds = feeds_for(model, sizes)
    expected = Runner(model)(feeds)
    broken = ""
    try:
        onnx.checker.check_model(pruned, full_check=True)
        got = Runner(pruned, optimised=True)(feeds)
        shapes = [a.shape for a in expected], [a.shape for a in got]
        if shapes[0] != shapes[1]:
            broken = f"outputs were {shapes[0]}, are {shapes[1]}"
        elif not all(np.isfinite(a).all() for a in got):
            broken = "outputs are not finite"
    except Exception as e:
        broken = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    if broken:
        return {"broken": broken, "seconds": round(seconds, 2), "left": None}
    return _result(macs_of(model), macs_of(pruned), seconds, "")


def _result(before: int, after: int, seconds: float, broken: str) -> Result:
    left = None if broken else round(after / max(before, 1), 4)
    return {"broken": broken, "seconds": round(seconds, 2), "left": left}
