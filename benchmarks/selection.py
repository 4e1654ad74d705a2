"""Channel selection by quadratic program: against greedy and its bound, and what accuracy it gives.

python -m benchmarks.selection                                   # ResNet shapes, seeded weights
python -m benchmarks.selection MODEL --images SET --eval-images SET --labels CSV --recipe TOML
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import load, quality
from onnx_esn import prune

WIDTHS, SIZE, CLASSES = (16, 32, 64), 32, 10
RANKED: tuple[dict[str, Any], ...] = (
    {"criterion": "signal-norm", "scope": "layer"},
    {"criterion": "signal-norm", "scope": "global"},
    {"criterion": "l1-norm", "scope": "layer"},
)


def resnet(depth: int, seed: int) -> onnx.ModelProto:
    """A ResNet for CIFAR with padded shortcuts; each filter is Gaussian with a scale of its own."""
    rng = np.random.default_rng([depth, seed])
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def store(values: np.ndarray, name: str) -> str:
        tensors.append(numpy_helper.from_array(values, name))
        return name

    def node(op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def conv(x: str, c: int, m: int, stride: int = 1) -> str:
        scale = rng.gamma(4.0, 0.25, size=(m, 1, 1, 1)) / np.sqrt(4.5 * c)
        W = rng.normal(size=(m, c, 3, 3)) * scale
        weight = store(W.astype(np.float32), f"W{len(nodes)}")
        bias = store(np.zeros(m, np.float32), f"b{len(nodes)}")
        window = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        return node("Conv", [x, weight, bias], **window)

    x, c = node("Relu", [conv("x", 3, WIDTHS[0])]), WIDTHS[0]
    for m in WIDTHS:
        for _ in range((depth - 2) // 6):
            stride, shortcut = (2 if m > c else 1), x
            if m > c:
                shortcut = node("MaxPool", [x], kernel_shape=[1, 1], strides=[2, 2])
                pads = np.array([0, (m - c) // 2, 0, 0, 0, m - c - (m - c) // 2, 0, 0])
                shortcut = node("Pad", [shortcut, store(pads, f"pads{len(nodes)}")])
            inner = node("Relu", [conv(x, c, m, stride)])
            x, c = node("Relu", [node("Add", [conv(inner, m, m), shortcut])]), m
    pooled = node("Flatten", [node("GlobalAveragePool", [x])])
    fc = store((rng.normal(size=(CLASSES, c)) / np.sqrt(c)).astype(np.float32), "fc")
    out = node("Gemm", [pooled, fc], transB=1)
    graph = helper.make_graph(
        nodes,
        f"resnet{depth}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def objectives(models: dict[str, onnx.ModelProto], shares: list[str], seconds: float) -> None:
    """What is kept is worth, in percent of the whole: greedy, found, at most."""
    names = ("greedy", "qcqp", "bound", "MACs", "idle", "s")
    click.echo("model".ljust(12) + "target".rjust(7) + "".join(n.rjust(9) for n in names))
    for name, model in models.items():
        for share in shares:
            details = prune(model, target_macs=share, selection="qcqp", solver_time=seconds).details
            found = details["selection"]
            worth = [100 * found[key] for key in ("greedy", "objective", "bound")]
            left = 100 * details["macs_after"] / details["macs_before"]
            late = "*" if found["time_limit_reached"] else ""
            click.echo(
                name.ljust(12)
                + share.rjust(7)
                + "".join(f"{v:9.3f}" for v in (*worth, left))
                + f"{found['inactive']:9d}{found['seconds']:9.1f}{late}"
            )
    click.echo("in % of the whole model; * the time limit struck")


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--images", type=click.Path(path_type=Path, exists=True))
@click.option("--eval-images", type=click.Path(path_type=Path, exists=True))
@click.option("--recipe", type=click.Path(path_type=Path, exists=True))
@click.option("--labels", type=click.Path(path_type=Path, exists=True))
@click.option("--shares", default="70%,50%,30%", show_default=True, help="Of the MACs, to keep.")
@click.option("--depths", default="20,32,56", show_default=True, help="Of the ResNet shapes.")
@click.option("--seed", default=0, show_default=True)
@click.option("--solver-time", default=120.0, show_default=True)
def main(
    model: Path | None, shares: str, depths: str, seed: int, solver_time: float, **paths: Any
) -> None:
    """The objective on ResNet shapes, or on MODEL; with image sets, accuracy beside criteria."""
    targets = shares.split(",")
    if model is None:
        shapes = {f"resnet{d}": resnet(int(d), seed) for d in depths.split(",")}
        objectives(shapes, targets, solver_time)
        return
    if paths["images"] is None or paths["eval_images"] is None:
        objectives({model.stem[:12]: onnx.load(model)}, targets, solver_time)
        return
    loaded, images, evaluation = load(model, **paths)
    what, whole = quality(loaded, loaded, evaluation)
    click.echo(f"{what}; the input model has {whole:.2f}; refitted, not fine-tuned")
    click.echo("selection".ljust(28) + "".join(t.rjust(9) for t in targets))
    rows: dict[str, dict[str, Any]] = {"qcqp": {"selection": "qcqp", "solver_time": solver_time}}
    rows |= {f"{r['criterion']}, {r['scope']}": r for r in RANKED}
    for name, options in rows.items():
        values = []
        for share in targets:
            small = prune(loaded, target_macs=share, images=images, **options).model
            values.append(quality(loaded, small, evaluation)[1])
        click.echo(name.ljust(28) + "".join(f"{v:9.2f}" for v in values))


if __name__ == "__main__":
    main()
