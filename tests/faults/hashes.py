"""Every verb with images on a small model, as a process of its own; prints a hash of each."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnx_esn
from tests.net import Net

REAL_SCANDIR = os.scandir


def small_model() -> onnx.ModelProto:
    """Folded and kept BatchNorm, a residual sum, a depthwise layer, a classifier."""
    net = Net(3, 12, 12)
    y = stem = net.conv_bn_relu("x", 3, 16)
    y = net.relu(net.conv(y, 16, 16))
    y = net.relu(net.conv(y, 16, 16, group=16))
    y = net.op("Add", net.conv(y, 16, 16, 1), stem)
    y = net.relu(net.bn(net.conv(y, 16, 24, bias=False), 24))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model(net.gemm(y, 24, 6))


def image_folder(place: Path) -> Path:
    from PIL import Image

    folder = place / "images"
    folder.mkdir()
    (folder / "recipe.toml").write_text('channels = "rgb"\n')
    draw = np.random.default_rng(1)
    for i in range(30):
        pixels = draw.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def verbs(m: onnx.ModelProto, x: Path, t: int) -> Mapping[str, Callable[[], Any]]:
    e = onnx_esn
    rough = e.quantize(m, bits=2).model
    qdq = {"format": "qdq", "activations": "uint8"}
    learn = {"epochs": 2, "threads": t}
    return {
        "recalibrate": lambda: e.recalibrate(rough, x, reference=m, threads=t),
        "prune": lambda: e.prune(m, ratio=0.3, images=x, threads=t),
        "reconstruct": lambda: e.prune(
            m, ratio=0.3, criterion="reconstruction", images=x, threads=t
        ),
        "quantize": lambda: e.quantize(m, bits=3, images=x, threads=t),
        "budget": lambda: e.quantize(m, target_cost="9%", images=x, threads=t),
        "activations": lambda: e.quantize(m, bits=4, images=x, threads=t, **qdq),
        "qil": lambda: e.quantize(m, bits=3, method="qil", images=x, **learn),
        "compress": lambda: e.compress(m, x, target_cost="9%", threads=t),
        "compress --learn": lambda: e.compress(m, x, bits=3, learn=True, **learn),
        "analyze": lambda: e.analyze(m, images=x, threads=t),
        "evaluate": lambda: e.evaluate([m, rough], x, threads=t, latency=False),
    }


def digest(result: Any) -> str:
    model = getattr(result, "model", None)
    if isinstance(model, onnx.ModelProto):
        content = model.SerializeToString(deterministic=True)
        plan = getattr(result, "plan", None)
        content += plan.to_json().encode() if plan is not None else b""
        # What was learned and judged on the way, also where it was not taken.
        stages = getattr(result, "stages", (("", result),))
        details = [(name, dict(stage.details)) for name, stage in stages]
        content += json.dumps(details, sort_keys=True, default=repr).encode()
    else:
        document = result.to_document()
        content = json.dumps(document, sort_keys=True, default=repr).encode()
    return hashlib.sha256(content).hexdigest()[:16]


class _Reversed:
    """A listing in the opposite order."""

    def __init__(self, path: Any = ".") -> None:
        with REAL_SCANDIR(path) as entries:
            self._entries = list(entries)[::-1]

    def __enter__(self) -> Any:
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(self._entries)


def main(threads: int, backwards: bool, chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        images = image_folder(Path(place))
        if backwards:
            os.scandir = _Reversed  # type: ignore[assignment, misc]
        model = small_model()
        found = {}
        for name, verb in verbs(model, images, threads).items():
            if not chosen or name in chosen:
                found[name] = digest(verb())
        if not chosen or "sweep" in chosen:
            folder = Path(place) / "sweep"
            more = {"methods": ["nearest", "joint"], "options": {"threads": threads}}
            # Options are part of what is kept of a point, not of what it gives.
            onnx_esn.sweep(model, images, folder, targets=[3, 2], **more)
            files = b"".join((folder / f"sweep.{e}").read_bytes() for e in ("json", "csv"))
            found["sweep"] = hashlib.sha256(files).hexdigest()[:16]
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "backwards", sys.argv[3:])
