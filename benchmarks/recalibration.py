"""Wall time of recalibrate against a plain forward pass, and what the batch size changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from common import load, sets
from onnx import numpy_helper

from onnx_esn import Prune, Recalibrate
from onnx_esn.calibration import Session, collect_outputs


@click.command()
@sets
@click.option("--runs", default=3, show_default=True)
def main(runs: int, **paths: Any) -> None:
    """Print the ratio of medians, and the largest difference between batch sizes."""
    model, images, _ = load(**{k: Path(v) if v else None for k, v in paths.items()})
    pruned = Prune(ratio=0.2)(model).model
    forward, methods = [], {"reestimate": [], "match": []}
    for _ in range(runs):
        session = Session(pruned)
        start = time.perf_counter()
        collect_outputs(session, images, 64)
        forward.append(time.perf_counter() - start)
        for method, times in methods.items():
            reference = model if method == "match" else None
            start = time.perf_counter()
            Recalibrate(images, reference=reference, method=method)(pruned)
            times.append(time.perf_counter() - start)
    base = float(np.median(forward))
    click.echo(f"forward pass over {len(images)} images: {base:.2f} s")
    for method, times in methods.items():
        click.echo(f"{method}: {np.median(times) / base:.2f} x")
    results = {
        size: _tensors(Recalibrate(images, method="reestimate", batch_size=size)(pruned).model)
        for size in (len(images), 64, 7, 1)
    }
    whole = results.pop(len(images))
    for size, tensors in results.items():
        worst = max(
            float(np.max(np.abs(tensors[n] - whole[n]) / (np.abs(whole[n]).max() + 1e-30)))
            for n in whole
        )
        click.echo(f"batch size {size}: largest difference to all at once {worst:.1e} (relative)")


def _tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        t.name: numpy_helper.to_array(t).astype(np.float64)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and t.dims
    }


if __name__ == "__main__":
    main()
