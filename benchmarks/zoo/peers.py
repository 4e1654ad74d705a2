"""The same nets by other pruners."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.zoo import peering, records
from benchmarks.zoo.children import Children
from benchmarks.zoo.export import PRELOAD

# Of each important family one: what all peers are asked for when no pattern is given.
SUBSET = (
    "torchvision/alexnet",
    "torchvision/vgg*",
    "torchvision/resne*",
    "torchvision/wide*",
    "torchvision/densenet*",
    "torchvision/googlenet",
    "torchvision/inception*",
    "torchvision/squeezenet*",
    "torchvision/mobilenet*",
    "torchvision/mnasnet*",
    "torchvision/shufflenet*",
    "torchvision/efficientnet*",
    "torchvision/regnet*",
    "torchvision/convnext*",
    "torchvision/fcn*",
    "torchvision/deeplab*",
    "torchvision/lraspp*",
    "own/*",
    "timm/seresnet18",
    "timm/skresnet18",
    "timm/resnest14d",
    "timm/res2net50_14w_8s",
    "timm/dla46_c",
    "timm/dpn48b",
    "timm/regnety_002",
    "timm/mobilenetv1_100",
    "timm/mobilenetv4_conv_small_035",
    "timm/ghostnet_050",
    "timm/hrnet_w18_small",
    "timm/cspresnet50",
    "timm/darknet53",
    "timm/ese_vovnet19b_slim",
    "timm/repvgg_a0",
    "timm/mobileone_s0",
    "timm/hgnetv2_b0",
    "timm/rexnet_100",
    "timm/gernet_s",
    "timm/xception41",
    "timm/convnextv2_atto",
    "timm/fastvit_t8",
    "timm/mobilevit_xxs",
    "timm/repvit_m0_9",
    "timm/mixnet_s",
    "timm/lcnet_035",
)


def ask_all(
    models: Path, results: Path, names: Sequence[str], *, python: str, seed: int, limit: float
) -> None:
    """Ask every peer about every net; a line of results for each."""
    index = records.latest(models / "index.jsonl", "name", "exporter")
    done = records.latest(results, "name", "peer")
    children = Children(PRELOAD)
    for name in names:
        files = {e: str(models / r["file"]) for (n, e), r in index.items() if n == name}
        questions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            "Torch-Pruning": (peering.torch_pruning, (name, seed))
        }
        for exporter in ("kept", "folded"):
            if Path(files.get(exporter, "")).is_file():
                questions[f"onnxsim, {exporter}"] = peering.onnxsim, (files[exporter],)
                if python:
                    arguments = files[exporter], python, limit
                    questions[f"qonnx, {exporter}"] = peering.qonnx, arguments
        for peer, (function, arguments) in questions.items():
            if (name, peer) in done:
                continue
            # qonnx runs in a process of its own, which must end before its parent does.
            spare = 30 if function is peering.qonnx else 0
            outcome = children.call(function, arguments, limit + spare)
            error = outcome.error
            if "TimeoutExpired" in error:
                error = f"time: more than {limit:g} s"
            record = {"name": name, "peer": peer, "limit": limit, "error": error}
            record |= outcome.value or {"broken": "", "left": None}
            records.append(results, record)
            text = error or record["broken"] or f"{record['left']:.0%} left"
            click.echo(f"{time.strftime('%H:%M:%S')} {name} {peer}: {text}")
    records.compact(results, "name", "peer")
