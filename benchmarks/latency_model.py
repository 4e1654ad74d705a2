"""Modelled against measured latency of pruned models, and of models pruned to a latency.

MODEL is a path, or `resnet50` for random weights in that shape. All models are measured in turns,
before and after the profile is taken; the 10 % quantile of each is compared.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnx_esn
from onnx_esn.calibration import Session
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.profiling.timing import random_feeds
from onnx_esn.plans.latency_model import LatencyModel

_RATIOS = (0.2, 0.4, 0.6)


class ResNet50:
    """Bottlenecks 3, 4, 6, 3 with BatchNorm folded, as exporters write them."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def conv(self, x: str, c: int, m: int, k: int, stride: int = 1) -> str:
        """One convolution."""
        name, scale = f"conv{len(self.nodes)}", np.sqrt(2 / (c * k * k))
        W = (self.rng.normal(size=(m, c, k, k)) * scale).astype(np.float32)
        self.tensors += [
            numpy_helper.from_array(W, f"{name}.weight"),
            numpy_helper.from_array(np.zeros(m, np.float32), f"{name}.bias"),
        ]
        return self.node(
            "Conv",
            [x, f"{name}.weight", f"{name}.bias"],
            name,
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=[k // 2] * 4,
        )

    def node(self, op: str, inputs: list[str], name: str = "", **attrs: object) -> str:
        """Any node."""
        name = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attrs))
        return f"{name}_out"

    def build(self) -> onnx.ModelProto:
        """The model."""
        x = self.node("Relu", [self.conv("x", 3, 64, 7, 2)])
        pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        x, c = self.node("MaxPool", [x], **pool), 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            m = 64 << stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                y = self.node("Relu", [self.conv(x, c, m, 1)])
                y = self.node("Relu", [self.conv(y, m, m, 3, stride)])
                y = self.conv(y, m, 4 * m, 1)
                x = x if block else self.conv(x, c, 4 * m, 1, stride)
                x, c = self.node("Relu", [self.node("Add", [x, y])]), 4 * m
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        W = (self.rng.normal(size=(1000, c)) * 0.02).astype(np.float32)
        self.tensors.append(numpy_helper.from_array(W, "fc.weight"))
        x = self.node("Gemm", [x, "fc.weight"], "fc", transB=1)
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "resnet50",
            [info("x", 1, [1, 3, 224, 224])],
            [info(x, 1, [1, 1000])],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def modelled(latency: LatencyModel, model: onnx.ModelProto) -> float:
    """Seconds."""
    layers = [x for x in measured_view(model).layers if x.name in latency.layers]
    each = (latency.layers[x.name].seconds(x.channels_in, x.filters) for x in layers)
    return latency.rest + sum(each)


class Race:
    """Measures models in turns."""

    def __init__(self, models: dict[str, onnx.ModelProto], threads: int) -> None:
        self.runners = [
            (Session(m, threads=threads), random_feeds(m, measured_view(m).facts.sizes))
            for m in models.values()
        ]
        self.times: list[list[float]] = [[] for _ in models]

    def go(self, rounds: int) -> None:
        """Each model five times a round; the first two find others' caches and do not count."""
        for _ in range(rounds):
            for (session, feeds), times in zip(self.runners, self.times, strict=True):
                session.run(feeds)
                session.run(feeds)
                for _ in range(3):
                    start = time.perf_counter()
                    session.run(feeds)
                    times.append(time.perf_counter() - start)

    def seconds(self) -> list[float]:
        """The 10 % quantile of each."""
        return [float(np.quantile(t, 0.1)) for t in self.times]


@click.command()
@click.argument("model")
@click.option("--threads", default=1, show_default=True)
@click.option("--round-to", default=8, show_default=True, help="Of the profile and of the pruning.")
@click.option("--prune-round-to", type=int, help="Of the pruning, where it is another.")
@click.option("--targets", default="", help="Also prune to these shares of the latency (qcqp).")
@click.option("--rounds", default=15, show_default=True)
@click.option("--repeat", default=40, show_default=True)
def main(
    model: str,
    threads: int,
    round_to: int,
    prune_round_to: int | None,
    targets: str,
    rounds: int,
    repeat: int,
) -> None:
    """Print one row per pruned model."""
    source = ResNet50().build() if model == "resnet50" else onnx.load(model)
    width = prune_round_to or round_to
    models = {"input": source}
    for scope, ratio in itertools.product(("layer", "global"), _RATIOS):
        result = onnx_esn.prune(source, ratio=ratio, scope=scope, round_to=width, absorb="none")
        models[f"{scope} {ratio}"] = result.model
    race = Race(models, threads)
    race.go(rounds)
    start = time.perf_counter()
    found = onnx_esn.profile(source, threads=threads, round_to=round_to, repeat=repeat)
    took = time.perf_counter() - start
    race.go(rounds)
    r2 = sorted(x.fit.r2 for x in found.layers)
    click.echo(
        f"profile: {took:.0f} s, {len(found.layers)} distinct layers, R² {r2[0]:.2f} … "
        f"{np.median(r2):.2f} … {r2[-1]:.2f} (least, median, most), "
        f"input {1e3 * found.seconds:.3f} ms, spread {found.spread:.0%}"
    )
    click.echo(f"{'model':<12} {'measured':>9} {'modelled':>9} {'error':>7} {'of input':>9}")
    seconds = race.seconds()
    for (name, m), t in zip(models.items(), seconds, strict=True):
        guess = modelled(found.model, m)
        click.echo(
            f"{name:<12} {1e3 * t:>6.3f} ms {1e3 * guess:>6.3f} ms {guess / t - 1:>+7.1%} "
            f"{t / seconds[0]:>9.1%}"
        )
    if targets:
        _to_targets(source, found.model, [float(x) for x in targets.split(",")], width, threads)


def _to_targets(
    source: onnx.ModelProto, latency: LatencyModel, shares: list[float], width: int, threads: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency.json"
        path.write_text(latency.to_json())
        models = {"input": source}
        for share in shares:
            result = onnx_esn.prune(
                source,
                selection="qcqp",
                target_latency=f"{100 * share:g}%",
                latency_model=path,
                round_to=width,
                absorb="none",
            )
            models[f"{share:.0%}"] = result.model
    race = Race(models, threads)
    race.go(60)
    seconds = race.seconds()
    click.echo(f"{'target':<12} {'measured':>9} {'modelled':>9} {'of input':>9} {'error':>7}")
    for (name, m), t in zip(models.items(), seconds, strict=True):
        share = 1.0 if name == "input" else float(name.rstrip("%")) / 100
        click.echo(
            f"{name:<12} {1e3 * t:>6.3f} ms {1e3 * modelled(latency, m):>6.3f} ms "
            f"{t / seconds[0]:>9.1%} {t / seconds[0] / share - 1:>+7.1%}"
        )


if __name__ == "__main__":
    main()
