"""How much faster integer kernels are than float ones, before and after pruning.

    python -m benchmarks.int8_latency MODEL --images SET --recipe TOML

MODEL may be `resnet50`: its layers with random weights. Models take turns, so that the noise of the
machine hits them all alike. Ratios are to the float model of the same width: of the shortest times,
and the median over turns of the ratio within a turn; the last column is that of the shortest times
to the whole float model. Below: what onnxruntime runs, from the graph it optimized.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from benchmarks.common import machine_class
from onnx_esn import prune
from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.passes.activations.quantizing import quantize_activations
from onnx_esn.passes.layers.costs import total_macs
from onnx_esn.passes.quantizing.quantization import Quantize

# One of these on integers costs a pass over a tensor, and none of them multiplies.
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Transpose")
_FLOAT = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--images", type=click.Path(path_type=Path, exists=True), help="Default: random.")
@click.option("--recipe", type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=32, help="Images to calibrate with.")
@click.option("--bits", default=7, help="Of the weights, mid-rise.")
@click.option("--activations", default="uint8", type=click.Choice(["uint8", "int8"]))
@click.option("--ratio", default=0.3, help="Of the filters to prune; 0: none.")
@click.option("--round-to", default="1,8,16", help="Widths are multiples of this; several in turn.")
@click.option("--threads", default="1,2")
@click.option("--batch", default="1,8")
@click.option("--seconds", default=10.0, help="At least, for each number of threads and batch.")
def main(
    model: str,
    images: Path | None,
    recipe: Path | None,
    count: int,
    bits: int,
    activations: str,
    ratio: float,
    round_to: str,
    threads: str,
    batch: str,
    seconds: float,
) -> None:
    source = resnet50() if model == "resnet50" else onnx.load(model)
    (spec,) = input_specs(source)
    shape = [n if isinstance(n, int) else 224 for n in spec.shape[1:]]
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(min(count, 8), *shape)).astype(np.float32)
    data = open_set(drawn if images is None else images, [spec], recipe=recipe).take(count)
    variants = {"whole": source}
    if ratio:
        for width in numbers(round_to):
            variants[f"pruned /{width}"] = prune(source, ratio=ratio, round_to=width).model
    models: dict[str, onnx.ModelProto] = {}
    for name, variant in variants.items():
        models[f"{name} float"] = variant
        models[f"{name} {activations}"] = integers(variant, data, bits, activations)
        macs = total_macs(variant) / 1e6
        click.echo(f"{name:16s} {macs:9.1f} M MAC")
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    known = [f for f in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8") if f in flags]
    click.echo(f"{machine_class()}: {' '.join(known)}; onnxruntime {ort.__version__}\n")
    click.echo(
        "threads batch | model               min ms  median   p10   p90 | to float  to whole"
    )
    for number in numbers(threads):
        for size in numbers(batch):
            x = np.resize(next(iter(data.batches(size))).feeds[spec.name], (size, *shape))
            for line in race(models, x, number, seconds):
                click.echo(f"{number:7d} {size:5d} | {line}")
    click.echo()
    for name, each in models.items():
        if not name.endswith("float"):
            click.echo(f"{name:20s} {describe(each)}")


def integers(model: onnx.ModelProto, data: CalibrationSet, bits: int, kind: str) -> onnx.ModelProto:
    fake = Quantize(bits=bits)(model).model  # zero filters stay: widths matter here
    return quantize_activations(fake, data, kind=kind).model


def options(threads: int = 0) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.log_severity_level = 3
    made.intra_op_num_threads = threads
    return made


def race(
    models: dict[str, onnx.ModelProto], x: np.ndarray, threads: int, seconds: float
) -> list[str]:
    """A line for each model."""
    sessions = [
        ort.InferenceSession(
            m.SerializeToString(), options(threads), providers=["CPUExecutionProvider"]
        )
        for m in models.values()
    ]
    feeds = [{s.get_inputs()[0].name: x} for s in sessions]
    order, turns = list(range(len(sessions))), []
    began = time.perf_counter()
    while len(turns) < 15 or time.perf_counter() - began < seconds:
        turn = [0.0] * len(sessions)
        for i in order:
            start = time.perf_counter_ns()
            sessions[i].run(None, feeds[i])
            turn[i] = (time.perf_counter_ns() - start) / 1e6
        turns.append(turn)
        order.reverse()
    times = np.array(turns[3:])
    lines = []
    for i, name in enumerate(models):
        mine = times[:, i]
        low, middle, high = np.percentile(mine, [10, 50, 90])
        base = times[:, i - i % 2]
        ratios = mine.min() / base.min(), np.median(mine / base), mine.min() / times[:, 0].min()
        lines.append(
            f"{name:18s} {mine.min():7.2f} {middle:7.2f} {low:5.1f} {high:5.1f} | "
            "{:4.2f}  {:6.2f} {:6.2f}".format(*ratios)
        )
    return lines


def describe(model: onnx.ModelProto) -> str:
    """What onnxruntime makes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        made, path = options(), Path(folder) / "optimized.onnx"
        made.optimized_model_filepath = str(path)
        ort.InferenceSession(model.SerializeToString(), made, providers=["CPUExecutionProvider"])
        ran = Counter(node.op_type for node in onnx.load(path).graph.node)
    whole = {op: n for op, n in ran.items() if op.startswith("Q") and op not in _CONVERSIONS}
    parts = {
        "integer": whole,
        "float layers": {op: ran[op] for op in _FLOAT if ran[op]},
        "conversions": {op: ran[op] for op in _CONVERSIONS if ran[op]},
        "others": {op: n for op, n in ran.items() if op not in (*whole, *_FLOAT, *_CONVERSIONS)},
    }
    return "; ".join(f"{k}: {', '.join(f'{n} {o}' for o, n in v.items()) or 'none'}"
                     for k, v in parts.items())  # fmt: skip


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 with BatchNormalization folded and random weights."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def op(kind: str, *inputs: str, **attrs: object) -> str:
        name = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name, **attrs))
        return name

    def store(value: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(value.astype(np.float32), f"t{len(tensors)}"))
        return tensors[-1].name

    def conv(x: str, c: int, m: int, k: int, stride: int = 1, gain: float = 2.0) -> str:
        W = store(rng.normal(size=(m, c, k, k)) * np.sqrt(gain / (c * k * k)))
        bias = store(rng.normal(size=m) * 0.1)
        return op("Conv", x, W, bias, strides=[stride] * 2, pads=[k // 2] * 4)

    y, c = op("Relu", conv("input", 3, 64, 7, 2)), 64
    y = op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            short = conv(y, c, 4 * width, 1, stride, 1.0) if not block else y
            z = op("Relu", conv(y, c, width, 1))
            z = op("Relu", conv(z, width, width, 3, stride))
            y = op("Relu", op("Add", conv(z, width, 4 * width, 1, 1, 0.5), short))
            c = 4 * width
    y = op("Flatten", op("GlobalAveragePool", y))
    y = op("Gemm", y, store(rng.normal(size=(1000, c)) * 0.02), store(np.zeros(1000)), transB=1)
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", 1, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info(y, 1, ["N", 1000])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
