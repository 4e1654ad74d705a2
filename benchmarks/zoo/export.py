"""Export every net in three ways, each in a child process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.zoo import records
from benchmarks.zoo.children import Children

PRELOAD = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch.onnx._internal.exporter._core",
    "benchmarks.zoo.own_nets",
    "benchmarks.zoo.timm_nets",
    "benchmarks.zoo.torchvision_nets",
)


def export_all(
    models: Path,
    names: Sequence[str],
    exporters: Sequence[str],
    *,
    seed: int,
    limit: float,
    retry: bool,
) -> None:
    """Export, and write a line of index.jsonl for each net and exporter."""
    index = models / "index.jsonl"
    children = Children(PRELOAD)
    for exporter in exporters:
        for name in names:
            before = records.latest(index, "name", "exporter").get((name, exporter))
            path = models / f"{name}.{exporter}.onnx"
            if before and (path.exists() or (before["error"] and not retry)):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            done = children.call(_export, (name, exporter, str(path), seed), limit)
            if done.error:
                path.unlink(missing_ok=True)
            record = {
                "name": name,
                "exporter": exporter,
                "source": name.split("/")[0],
                "file": str(path.relative_to(models)),
                "error": done.error,
                "seconds": round(done.seconds, 1),
                **(done.value or {}),
            }
            records.append(index, record)
            click.echo(f"{time.strftime('%H:%M:%S')} {name} {exporter} {done.error or 'ok'}")


def _export(name: str, exporter: str, path: str, seed: int) -> dict[str, Any]:
    import torch

    from benchmarks.zoo.catalog import all_nets
    from benchmarks.zoo.exporters import EXPORTERS

    torch.set_num_threads(1)
    net = all_nets()[name]
    module, x = built(name, seed)
    export = EXPORTERS[exporter]
    target = Path(path)
    partial = target.with_suffix(".part")
    why_static = "one image" if net.image_list else ""
    difference = 0.0
    for dynamic in [False] if net.image_list else [True, False]:
        try:
            with torch.no_grad():
                export(module, x, partial, dynamic)
            difference = _checked(module, x, partial, dynamic)
        except Exception as e:
            if not dynamic:
                raise
            why_static = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
            continue
        break
    partial.rename(target)
    return {
        "family": net.family,
        "kind": net.kind,
        "input": list(x.shape),
        "dynamic": not why_static,
        "why_static": why_static,
        "parameters": sum(p.numel() for p in module.parameters()),
        "bytes": target.stat().st_size,
        "torch_difference": difference,
        "seed": seed,
    }


def built(name: str, seed: int) -> tuple[Any, Any]:
    """The module with its random weights, in eval mode, and an input of the smallest size."""
    import torch

    from benchmarks.zoo.catalog import all_nets
    from benchmarks.zoo.exporters import TensorsOnly
    from benchmarks.zoo.random_weights import calibrate_norms, randomise, seed_of

    net = all_nets()[name]
    torch.manual_seed(seed_of(name, seed))
    module = TensorsOnly(net.build()).eval()
    randomise(module)
    reasons = []
    for size in net.sizes:
        shape = (net.channels, size, size) if net.image_list else (4, net.channels, size, size)
        x = torch.randn(shape)
        try:
            calibrate_norms(module, x)
            x = x if net.image_list else x[:2]
            with torch.no_grad():
                outputs = module(x)
        except Exception as e:
            reasons.append(f"{size}: {' '.join(str(e).split())[:80]}")
            continue
        if not outputs or not all(torch.isfinite(y).all() for y in outputs):
            raise ValueError("the module's outputs are not finite")
        return module, x
    raise ValueError(f"no input size works: {'; '.join(reasons)}")


def _checked(module: Any, x: Any, path: Path, dynamic: bool) -> float:
    """Largest difference from torch relative to an output's scale; runs batch 3 where dynamic.

    Raises:
        ValueError: a BatchNormalization is in training mode, or the sizes of the outputs differ.
    """
    import numpy as np
    import onnx
    import onnxruntime as ort
    import torch

    _refuse_training_mode(onnx.load(path).graph)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed = session.get_inputs()[0].name
    batches = [x, torch.cat([x, x])[:3] * 0.9] if dynamic else [x]
    if dynamic and isinstance(session.get_inputs()[0].shape[0], int):
        raise ValueError("the exporter fixed the batch")
    worst = 0.0
    for batch in batches:
        with torch.no_grad():
            expected = [y.numpy() for y in module(batch)]
        got = session.run(None, {fed: batch.numpy()})
        for a, b in zip(expected, got, strict=True):
            if a.shape != b.shape:
                raise ValueError(f"torch gives {a.shape}, the exported model {b.shape}")
            if a.size and a.dtype.kind == "f":
                scale = max(float(np.abs(a).max()), 1e-6)
                worst = max(worst, float(np.abs(a - b).max()) / scale)
    return worst


def _refuse_training_mode(graph: Any) -> None:
    """Weights may be normalised that way (standardised convs); signals must not."""
    data = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    for node in graph.node:
        if data.isdisjoint(node.input):
            continue
        data.update(node.output)
        modes = [a.i for a in node.attribute if a.name == "training_mode"]
        if node.op_type == "BatchNormalization" and (any(modes) or len(node.output) > 1):
            raise ValueError(f"{node.name} is in training mode")
