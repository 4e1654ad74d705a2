"""Time and memory of pruning by depth: ResNets of 18 to 1,000 layers, built here.

Each depth runs in a process of its own, whose peak memory is its own. Times are the least of three,
stated also per node: flat means linear. Bottlenecks are narrow, so that it is the graph that is
measured and not the weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

DEPTHS = (18, 34, 50, 101, 152, 300, 500, 1000)
_WIDTHS = (16, 32, 64, 128)
_CLASSES = 10


def resnet(depth: int, seed: int, widths: tuple[int, int, int, int] = _WIDTHS) -> onnx.ModelProto:
    """A ResNet of `depth` layers in four stages of basic blocks, BatchNorm kept."""
    rng = np.random.default_rng(seed)
    nodes, tensors = [], []

    def store(name: str, value: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv_bn(x: str, name: str, c: int, m: int, k: int, stride: int) -> str:
        w = store(f"{name}.weight", rng.normal(size=(m, c, k, k)) / (k * np.sqrt(c)))
        out = f"{name}_conv"
        nodes.append(
            helper.make_node(
                "Conv", [x, w], [out], out, kernel_shape=[k, k], strides=[stride] * 2,
                pads=[k // 2] * 4,
            )
        )  # fmt: skip
        low = {"gamma": 0.5, "beta": -0.5, "mean": -0.5, "var": 0.5}
        names = [store(f"{name}.{p}", rng.uniform(v, v + 1, m)) for p, v in low.items()]
        nodes.append(helper.make_node("BatchNormalization", [out, *names], [f"{name}_bn"], name))
        return f"{name}_bn"

    def op(kind: str, *inputs: str, name: str) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{name}_out"], name))
        return f"{name}_out"

    x, c = op("Relu", conv_bn("x", "stem", 3, widths[0], 3, 1), name="stem_relu"), widths[0]
    blocks = np.diff(np.linspace(0, (depth - 2) // 2, len(widths) + 1).round().astype(int))
    for stage, (m, count) in enumerate(zip(widths, blocks, strict=True)):
        for b in range(count):
            name, stride = f"s{stage}b{b}", 2 if stage and not b else 1
            y = op("Relu", conv_bn(x, f"{name}a", c, m, 3, stride), name=f"{name}_relu")
            y = conv_bn(y, f"{name}b", m, m, 3, 1)
            if c != m:
                x = conv_bn(x, f"{name}c", c, m, 1, stride)
            x, c = op("Relu", op("Add", x, y, name=f"{name}_add"), name=f"{name}_end"), m
    x = op("Flatten", op("GlobalAveragePool", x, name="pool"), name="flat")
    weights = store("fc.weight", rng.normal(size=(_CLASSES, c)) / np.sqrt(c))
    nodes.append(helper.make_node("Gemm", [x, weights], ["logits"], "fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", _CLASSES])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(path: Path) -> dict[str, float]:
    """Seconds of the two halves of pruning, and peak memory, of the model in `path`."""
    from onnx_esn.graph.channels.groups import analyse
    from onnx_esn.graph.rewrite.rewriting import rewrite
    from onnx_esn.passes.pruning.prune import Prune
    from onnx_esn.passes.pruning.scores import class_scores
    from onnx_esn.passes.pruning.selection import Selector

    def peak() -> int:
        # Not ru_maxrss: a child process inherits that of its parent.
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

    before = peak()
    model = onnx.load(path)
    Prune(ratio=0.5)(model)
    memory = peak() - before
    times = []
    for _ in range(3):
        start = time.perf_counter()
        analysis = analyse(model)
        analysed = time.perf_counter()
        score, filters = class_scores(analysis, "signal-norm")
        removed = analysis.removed_labels(
            Selector(analysis, score, filters, "layer", 1).by_ratio(0.5)
        )
        chosen = time.perf_counter()
        rewrite(analysis, removed)
        times.append((analysed - start, time.perf_counter() - chosen))
    return {
        "nodes": len(model.graph.node),
        "analyse": min(t[0] for t in times),
        "rewrite": min(t[1] for t in times),
        "size": path.stat().st_size,
        "memory": memory,
    }


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--models", default="build/scaling", type=click.Path(path_type=Path))
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Write the curve as SVG.")
def main(seed: int, models: Path, one: Path | None, plot: Path | None) -> None:
    """Print a table, and draw the curve."""
    if one is not None:
        click.echo(json.dumps(measure(one)))
        return
    models.mkdir(parents=True, exist_ok=True)
    table = Table("layers", "nodes", "label s", "slice s", "ms a node", "file MB", "memory / file")
    rows = []
    for depth in DEPTHS:
        path = models / f"resnet{depth}.onnx"
        onnx.save(resnet(depth, seed), path)
        child = subprocess.run(
            [sys.executable, __file__, "--one", str(path)], capture_output=True, check=True
        )
        r = json.loads(child.stdout)
        rows.append((depth, r))
        both = r["analyse"] + r["rewrite"]
        table.add_row(
            str(depth),
            f"{r['nodes']:,}",
            f"{r['analyse']:.2f}",
            f"{r['rewrite']:.2f}",
            f"{1000 * both / r['nodes']:.2f}",
            f"{r['size'] / 1e6:.1f}",
            f"{r['memory'] / r['size']:.1f}",
        )
    Console(width=100).print(table)
    if plot is not None:
        _draw(rows, plot)


def _draw(rows: list[tuple[int, dict[str, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    nodes = [r["nodes"] for _, r in rows]
    axes.plot(nodes, [r["analyse"] for _, r in rows], "o-", label="label channels")
    total = [r["analyse"] + r["rewrite"] for _, r in rows]
    axes.plot(nodes, total, "s-", label="label and slice")
    axes.plot(nodes, np.array(nodes) * total[-1] / nodes[-1], "--", color="gray", label="linear")
    for (depth, r), y in zip(rows, total, strict=True):
        if depth >= 300:
            at = (r["nodes"], y)
            axes.annotate(f"{depth} layers", at, (-6, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="nodes of the graph", ylabel="seconds", xlim=0, ylim=(0, 1.1 * total[-1]))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
