"""Write old over nothing and new over old, killed before each file operation in turn.

Run as a script: a process of one thread, which forks. Prints one JSON line with what was found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.model_file import save_model, write_bytes, write_text

# What changes the file system, or looks at it before that.
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.listdir"}
EVENTS |= {"os.scandir", "os.truncate", "shutil.rmtree", "tempfile.mkdtemp", "fcntl.flock"}


def model(seed: int) -> onnx.ModelProto:
    W = np.random.default_rng(seed).standard_normal((8, 64), np.float32)
    x, y = (helper.make_tensor_value_info(n, 1, [1, s]) for n, s in (("x", 64), ("y", 8)))
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    graph = helper.make_graph([node], f"of {seed}", [x], [y], [numpy_helper.from_array(W, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WRITE: dict[str, Callable[[Path, int], object]] = {
    "model": lambda path, seed: save_model(model(seed), path),
    "with data": lambda path, seed: save_model(model(seed), path, external=True),
    "text": lambda path, seed: write_text(f"text {seed}\n" * 100, path),
    "bytes": lambda path, seed: write_bytes(bytes([seed]) * 5000, path),
    # What a model had its weights in, or has now, may be a matter of its size.
    "data or not": lambda path, seed: save_model(model(seed), path, external=seed == 1),
}


def content(path: Path, kind: str) -> str:
    """What a reader of the target finds: nothing, an old or a new one, or something else."""
    if not path.exists():
        return "nothing"
    if kind in ("text", "bytes"):
        found = path.read_bytes()
        old, new = (f"text {seed}\n".encode() * 100 for seed in (1, 2))
        if kind == "bytes":
            old, new = bytes([1]) * 5000, bytes([2]) * 5000
        return {old: "old", new: "new"}.get(found, "torn")
    try:
        loaded = onnx.load(path)
    except Exception as error:
        return f"torn: {error}"
    for tensor in loaded.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    for seed, name in ((1, "old"), (2, "new")):
        if loaded.graph == model(seed).graph:
            return name
    return "mixed"


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Whether a process that does the work was killed at that step, before it was done."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("the work failed by itself")
        return os.WIFSIGNALED(status)
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def main(folder: Path, kind: str) -> None:
    write = WRITE[kind]
    reference = folder / "reference"
    reference.mkdir()
    path = reference / "m.onnx"
    write(path, 1)
    write(path, 2)
    clean = sorted(p.name for p in reference.iterdir())
    problems, steps = [], {}
    for first in (True, False):  # onto nothing, onto the old one
        allowed = ("nothing", "old") if first else ("old", "new")
        counts = dict.fromkeys(allowed, 0)
        step = 0
        while True:
            place = folder / f"{first}-{step}"
            place.mkdir()
            target = place / "m.onnx"
            if not first:
                write(target, 1)
            if not killed_at(step, lambda: write(target, 1 if first else 2)):  # noqa: B023
                break
            found = content(target, kind)
            if found not in allowed:
                problems.append(f"{first} {step}: {found}")
            counts[found] = counts.get(found, 0) + 1
            write(target, 2)
            if sorted(p.name for p in place.iterdir()) != clean or content(target, kind) != "new":
                problems.append(f"{first} {step}: then {sorted(p.name for p in place.iterdir())}")
            shutil.rmtree(place)
            step += 1
        steps["onto nothing" if first else "onto an old one"] = counts
    print(json.dumps({"problems": problems, "steps": steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
