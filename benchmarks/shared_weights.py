"""Codes for weights that two branches share: to nearest, and compensated for both together.

    python -m benchmarks.shared_weights MODEL --images SET --eval-images SET --bits 2,3,4

From a classifier of images a model is made that averages its outputs on an image and on its mirror
image, each weight stored once. It is quantized at so many bits for every filter. Printed is how far
its outputs are from its own float outputs on the other set, and the same of the classifier alone,
whose weights have one use each.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.common import load, machine_class, sets
from onnx_esn import evaluate, quantize

_MIRROR = {"starts": [-1], "ends": [-(1 << 60)], "axes": [3], "steps": [-1]}


def mirrored_twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """The mean of the model's outputs on its input (N, C, H, W) and on the mirror image of that."""
    result = copy.deepcopy(model)
    graph = result.graph
    stored = {tensor.name for tensor in graph.initializer}
    (x,) = [value.name for value in graph.input if value.name not in stored]
    (y,) = [value.name for value in graph.output]
    kept = stored | {""}
    twins = []
    for node in graph.node:
        twin = copy.deepcopy(node)
        twin.name = f"{node.name}.mirrored"
        twin.input[:] = [i if i in kept else f"{i}.mirrored" for i in node.input]
        twin.output[:] = [f"{o}.mirrored" for o in node.output]
        twins.append(twin)
    for name, value in _MIRROR.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    nodes = [
        helper.make_node("Slice", [x, *_MIRROR], [f"{x}.mirrored"], name="mirror"),
        *copy.deepcopy(list(graph.node)),
        *twins,
        helper.make_node("Add", [y, f"{y}.mirrored"], ["both"], name="both"),
        helper.make_node("Mul", ["both", "half"], ["mean"], name="mean"),
    ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output[0].name = "mean"
    onnx.checker.check_model(result, full_check=True)
    return result


@click.command()
@sets
@click.option("--bits", default="2,3,4", show_default=True)
def main(bits: str, **paths: Any) -> None:
    """Print a row for each number of bits."""
    model, images, others = load(**{k: Path(v) if v else None for k, v in paths.items()})
    both = mirrored_twice(model)
    click.echo(f"KL from the float outputs; {machine_class()}; {len(images)} images")
    click.echo(f"{'bits':>4} {'shared, nearest':>20} {'shared':>20} {'one use':>20}")
    for number in (int(b) for b in bits.split(",")):
        row = ""
        for one, method in ((both, "nearest"), (both, "compensated"), (model, "compensated")):
            done = quantize(one, bits=number, images=images, method=method)
            agreement = evaluate([one, done.model], others).models[1].agreement
            assert agreement is not None
            assert agreement.kl is not None
            row += f"{agreement.kl:.4f}".rjust(21)
        click.echo(f"{number:>4}{row}")


if __name__ == "__main__":
    main()
