"""Peak memory and time of every verb on a model above 2 GB, whose weights are in an external file.

    python benchmarks/large_models.py                 # all verbs; needs 10 GB of disk, 5 of memory
    python benchmarks/large_models.py inspect prune   # these only
    python benchmarks/large_models.py --width 1024    # a quarter of everything: a quick look

The model is shaped like VGG: wide 3x3 convolutions and a large Gemm behind them, random weights,
few positions, so that it is weights that count. Each verb is a process of its own, with a limit on
its address space; its peak is the VmHWM of the kernel, which counts mapped files too.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data

WIDE_LAYERS, CLASSES = 10, 1000
SIZE, LEFT = 32, 4
GIB = 2**30
LIMIT = 12 * GIB


@dataclass(frozen=True)
class Measurement:
    """A process: peak resident memory and seconds; what it wrote."""

    verb: str
    status: int
    peak: int
    seconds: float
    output: int


class Writer:
    """Weights go to the file as they are drawn; the model names them."""

    def __init__(self, path: Path) -> None:
        self.rng = np.random.default_rng(0)
        self.path = path
        self.tensors: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        fan_in = np.prod(shape[1:])
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        with self.path.open("ab") as file:
            file.write(bytes(-file.tell() % 4096))
            start = file.tell()
            for _ in range(shape[0]):
                row = self.rng.standard_normal(shape[1:], np.float32) * np.float32(
                    (1.5 / fan_in) ** 0.5
                )
                file.write(row.tobytes())
            where = {"location": self.path.name, "offset": start, "length": file.tell() - start}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name

    def bias(self, name: str, size: int) -> str:
        values = self.rng.standard_normal(size, np.float32) * 0.1
        self.tensors.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        return name


def write_network(path: Path, width: int) -> int:
    """Write the network with its weights beside it; returns the bytes of both."""
    writer = Writer(path.with_name(f"{path.name}.data"))
    nodes, x, channels = [], "image", 3

    def conv(outputs: int) -> None:
        nonlocal x, channels
        name = f"conv{len(nodes)}"
        inputs = [x, writer.weight(f"{name}.weight", outputs, channels, 3, 3)]
        inputs.append(writer.bias(f"{name}.bias", outputs))
        nodes.append(helper.make_node("Conv", inputs, [name], name, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], f"{name}.relu"))
        x, channels = f"{name}.relu", outputs

    for wider in (width // 8, width // 2, width):  # each on half the size of the one before
        conv(wider)
        pool = f"pool{wider}"
        step = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("MaxPool", [x], [pool], pool, **step))
        x = pool
    for _ in range(WIDE_LAYERS):
        conv(width)
    nodes.append(helper.make_node("Flatten", [x], ["flat"], "flat"))
    x = "flat"
    features, flat = 2 * width, width * LEFT**2
    for name, sizes in (("fc1", (features, flat)), ("fc2", (CLASSES, features))):
        inputs = [x, writer.weight(f"{name}.weight", *sizes), writer.bias(f"{name}.bias", sizes[0])]
        nodes.append(helper.make_node("Gemm", inputs, [name], name, transB=1))
        x = name
        if name == "fc1":
            nodes.append(helper.make_node("Relu", [x], ["fc1.relu"], "fc1.relu"))
            x = "fc1.relu"
    shapes = (["N", 3, SIZE, SIZE], ["N", CLASSES])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("image", x), shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], writer.tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    path.write_bytes(model.SerializeToString())
    return stored(path)


def stored(path: Path) -> int:
    """Bytes of a model and its weights; an output that is not as it should be stops the run."""
    model = onnx.load(path, load_external_data=False)
    outside = [t for t in model.graph.initializer if uses_external_data(t)]
    places = {entry.value for t in outside for entry in t.external_data if entry.key == "location"}
    assert len(places) <= 1, f"{path}: weights in {places}"
    return path.stat().st_size + sum((path.parent / place).stat().st_size for place in places)


def measured(verb: str, command: Sequence[str], output: Path | None) -> Measurement:
    """Run `onnx-esn` in a process of its own."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        os.execv(sys.executable, [sys.executable, "-m", "onnx_esn", *command, "--quiet"])
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    model_file = output is not None and output.is_file() and verb != "profile"
    made = stored(output) if model_file else 0
    return Measurement(
        verb, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, seconds, made
    )


def commands(folder: Path) -> dict[str, list[str]]:
    """Arguments of each verb; a name after a dot tells two runs of a verb apart."""
    model, images = str(folder / "large.onnx"), ["--images", str(folder / "images.npy")]
    quantized = str(folder / "quantize.onnx")
    return {
        "inspect": [model],
        "annotate": [model],
        "prune": [model, "--ratio", "0.1"],
        "prune.images": [model, "--ratio", "0.1", *images],
        "quantize": [model, "--bits", "4"],
        "quantize.qdq": [model, "--bits", "4", "--format", "qdq"],
        "convert": [quantized, "--format", "qdq"],
        "compare": [model, quantized],
        "compare.images": [model, quantized, *images],
        "evaluate": [model, quantized, *images],
        "recalibrate": [quantized, "--reference", model, *images],
        "quantize.nearest": [model, "--bits", "4", "--method", "nearest", *images],
        "quantize.int8": [model, "--bits", "8", "--activations", "uint8", *images],
        "equalize": [model],
        "analyze": [model],
        "quantize.images": [model, "--bits", "4", *images],
        "compress": [model, "--bits", "4", "--ratio", "0.1", *images],
        "sweep": [model, "--bits", "4", "--ratios", "0.1", *images, "--eval-images", images[1]],
        "profile": [model, "--points", "4", "--repeat", "1"],
        "trace": [str(folder / "epoch_0.onnx"), str(folder / "epoch_1.onnx")],
    }


WRITES_NOTHING = ("inspect", "compare", "evaluate", "analyze", "trace")
NEEDS_QUANTIZED = ("convert", "compare", "compare.images", "evaluate", "recalibrate", "trace")


@click.command()
@click.argument("verbs", nargs=-1)
@click.option("--width", default=2048, show_default=True, help="Channels; 2048 for 2.2 GB.")
@click.option(
    "--images", default=4, show_default=True, help="Number of images, for what takes any."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep model and outputs here.")
def main(verbs: tuple[str, ...], width: int, images: int, folder: Path | None) -> None:
    """Measure VERBS, or all of them."""
    with tempfile.TemporaryDirectory(dir=folder and folder.parent) as scratch:
        place = folder or Path(scratch)
        place.mkdir(exist_ok=True)
        model = place / "large.onnx"
        size = stored(model) if model.exists() else write_network(model, width)
        samples = np.random.default_rng(1).standard_normal((images, 3, SIZE, SIZE), np.float32)
        np.save(place / "images.npy", samples)
        print(f"model: {size / 1e9:.2f} GB, limit on address space {LIMIT / GIB:.0f} GiB")
        known = commands(place)
        wanted = list(verbs or known)
        quantized = place / "quantize.onnx"
        if set(wanted) & set(NEEDS_QUANTIZED) and not quantized.exists():
            wanted = ["quantize", *(v for v in wanted if v != "quantize")]
        print(f"{'verb':18}{'peak / file':>12}{'seconds':>9}{'output / file':>15}")
        for name in wanted:
            verb = name.split(".")[0]
            output = None if verb in WRITES_NOTHING else place / f"{name}.onnx"
            if verb == "trace":
                for number, checkpoint in enumerate((model, quantized)):
                    (place / f"epoch_{number}.onnx").hardlink_to(checkpoint)
            command = [verb, *known[name], *(() if output is None else ("-o", str(output)))]
            done = measured(name, command, output)
            failed = f"  exit code {done.status}" if done.status else ""
            print(
                f"{name:18}{done.peak / size:12.2f}{done.seconds:9.0f}"
                f"{done.output / size:15.2f}{failed}",
                flush=True,
            )
            if output is not None and output != quantized:
                for path in place.glob(f"{output.name}*"):  # its weights are beside it
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
