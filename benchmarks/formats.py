"""Bytes, exactness and latency of a model in each output format.

    python -m benchmarks.formats MODEL... [--bits 4,8]

MODEL may be `resnet50`: its layers with random weights. `ratio` is the file to the bits of all
weights / 8 plus what stays float. Latency: one thread, the fastest of the runs; `folded` with
`session.disable_quant_qdq`.
"""

from __future__ import annotations

import time

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from benchmarks.int8_latency import resnet50
from onnx_esn import inspect, quantize
from onnx_esn.formats import FORMATS
from onnx_esn.formats.options import FormatOptions
from onnx_esn.graph.inputs import data_inputs, input_sizes

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
RUNS = 7


@click.command(context_settings={"show_default": True})
@click.argument("models", nargs=-1, required=True)
@click.option("--bits", default="4,8", help="Bits of every filter.")
@click.option("--opset", type=int, help="Operator set of `qdq`; 25 has 2-bit integers.")
def main(models: tuple[str, ...], bits: str, opset: int | None) -> None:
    """Print a line for each model and number of bits."""
    click.echo("model                 bits       fake        qdq  ratio   difference"
               "   ms: fake    qdq  folded  forms")  # fmt: skip
    for name in models:
        source = resnet50() if name == "resnet50" else onnx.load(name)
        for b in (int(x) for x in bits.split(",")):
            fake = quantize(source, bits=b).model
            written = FORMATS["qdq"](fake, FormatOptions(opset=opset))
            ideal = inspect(fake, groups=False).totals.esn_prime_memory / 8
            stored = written.model.graph.initializer
            ideal += sum(len(t.raw_data) for t in stored if t.data_type in FLOATS)
            size = written.model.ByteSize()
            difference, times = race(fake, written.model)
            label = name.rsplit("/", 1)[-1].removesuffix(".onnx")
            click.echo(
                f"{label:22}{b:4}{fake.ByteSize():11,}{size:11,}{size / ideal:7.3f}"
                f"{difference:13.2g}{times[0]:11.1f}{times[1]:7.1f}{times[2]:8.1f}"
                f"  {written.forms()}"
            )


def race(fake: onnx.ModelProto, written: onnx.ModelProto) -> tuple[float, list[float]]:
    """Largest difference of an output to the largest one, and milliseconds of each session."""
    sessions = [session(fake), session(written), session(written, fold=True)]
    sizes, rng = input_sizes(fake), np.random.default_rng(0)
    feeds = {
        info.name: rng.normal(size=sizes[info.name]).astype(np.float32)
        for info in data_inputs(fake)
    }
    a, b, _ = (s.run(None, feeds)[0] for s in sessions)
    best = [np.inf] * len(sessions)
    for _ in range(RUNS):
        for i, s in enumerate(sessions):
            start = time.perf_counter()
            s.run(None, feeds)
            best[i] = min(best[i], 1e3 * (time.perf_counter() - start))
    return float(np.abs(a - b).max() / np.abs(a).max()), best


def session(model: onnx.ModelProto, *, fold: bool = False) -> ort.InferenceSession:
    """A session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if fold:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(model.SerializeToString(), options, providers=providers)


if __name__ == "__main__":
    main()
