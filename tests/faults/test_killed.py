"""Killed at any moment: the target is the old file or the complete new one, and what is left goes.

The fast tests kill a writer before each of its file operations; the slow ones kill whole commands
at random moments.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from onnx_esn import targets
from onnx_esn.graph.model_file import save_model

from .commands import IMAGES, LONG, MODEL, ROOT, arguments, environment, everything, hidden, start
from .killed_writer import content, model

KILLS = 20  # of each command


@pytest.mark.parametrize("kind", ["model", "with data", "text", "bytes", "data or not"])
def test_a_writer_killed_before_any_of_its_file_operations(tmp_path, kind):
    out = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_writer", str(tmp_path), kind],
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    found = json.loads(out)
    assert found["problems"] == []
    steps = found["steps"]
    # Both outcomes were met, and nothing but them.
    assert set(steps["onto nothing"]) == {"nothing", "old"}
    assert set(steps["onto an old one"]) == {"old", "new"}
    assert min(n for counts in steps.values() for n in counts.values()) >= 3


# Two settings of each command that writes: the old and the new outputs.
QUICK = ("--images", "IMAGES")
WRITERS = {
    "quantize": (
        ("quantize", MODEL, "-o", "OUT/m.onnx", "--plan-out", "OUT/p.json", "--external-data"),
        ("--bits", 4),
        ("--bits", 3),
    ),
    "convert": (
        ("convert", "QUANTIZED", "-o", "OUT/m.onnx", "--external-data"),
        ("--format", "qdq"),
        ("--format", "qonnx"),
    ),
    "prune": (
        ("prune", MODEL, "-o", "OUT/m.onnx", "--plan-out", "OUT/p.json"),
        ("--ratio", 0.2),
        ("--ratio", 0.3),
    ),
    "rotate": (("rotate", MODEL, "-o", "OUT/m.onnx"), (), ("--seed", "1")),
    "equalize": (("equalize", MODEL, "-o", "OUT/m.onnx"), (), ("--across", "all")),
    "annotate": (("annotate", "QUANTIZED", "-o", "OUT/m.onnx"), (), ()),
    "inspect": (("inspect", MODEL, "--ratios-out", "OUT/r.json"), (), ()),
    "recalibrate": (
        ("recalibrate", "QUANTIZED", "-o", "OUT/m.onnx", "--reference", MODEL, *QUICK),
        ("--batch-size", 8),
        ("--method", "match"),
    ),
    "compress": (
        # Not its report: that has latencies, which differ from run to run.
        ("compress", MODEL, "-o", "OUT/m.onnx", *QUICK),
        ("--bits", 4, "--method", "nearest", "--external-data"),
        ("--bits", 3, "--method", "nearest"),
    ),
    "analyze": (("analyze", MODEL, "-o", "OUT", *QUICK), ("--seed", 0), ("--seed", 1)),
    "trace": (("trace", "SERIES", "-o", "OUT"), (), ("--quantizer", "mid-tread")),
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """What the commands read: few images, a quantized model, a series of checkpoints."""
    folder = tmp_path_factory.mktemp("prepared")
    images, series = folder / "images", folder / "series"
    images.mkdir()
    series.mkdir()
    (images / "recipe.toml").write_bytes((IMAGES / "recipe.toml").read_bytes())
    for file in sorted((IMAGES / "images").iterdir())[:24]:
        (images / file.name).write_bytes(file.read_bytes())
    W = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    for epoch in range(3):
        np.savez(series / f"epoch_{epoch}.npz", conv=W * (1 + epoch))
    complete(["quantize", str(MODEL), "-o", str(folder / "q.onnx"), "--bits", "3"], folder / "tmp")
    return {"IMAGES": images, "QUANTIZED": folder / "q.onnx", "SERIES": series}


def complete(args, temporary):
    process = start(args, temporary)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def commands(name, prepared, out):
    parts, old, new = WRITERS[name]
    for more in (old, new):
        whole = [prepared.get(a, a) if isinstance(a, str) else a for a in (*parts, *more)]
        yield arguments(tuple(whole), out)


def sets(files):
    """Files by what belongs together: a model with its weights."""
    data = {name for name in files if name.endswith(".data")}
    return {
        name: (content, {d: files[d] for d in data if d.encode() in content})
        for name, content in files.items()
        if name not in data
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_a_command_killed_at_any_moment(tmp_path, prepared, name):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    old_args, new_args = commands(name, prepared, out)
    complete(old_args, temporary)
    old = everything(out)
    began = time.monotonic()
    complete(new_args, temporary)
    whole = time.monotonic() - began
    new = everything(out)
    assert hidden(out) == []
    draw = random.Random(name)
    outcomes = set()
    for _ in range(KILLS):
        for file in [p for p in out.iterdir() if not p.name.startswith(".")]:
            file.unlink()
        for file, held in old.items():
            (out / file).write_bytes(held)
        process = start(new_args, temporary)
        if draw.random() < 0.4:
            time.sleep(whole * draw.uniform(0.1, 1))
        else:  # where it writes, which is the least part of it
            while process.poll() is None and not any(p.is_dir() for p in out.iterdir()):
                time.sleep(0.0005)
            time.sleep(draw.choice([0, 0.003, 0.01, 0.03, 0.1]) * draw.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = sets({k: v for k, v in everything(out).items() if ".onnx-esn." not in k})
        allowed = {k: [sets(which).get(k) for which in (old, new)] for k in {*old, *new}}
        for file, there in found.items():
            assert there in allowed[file], file
            outcomes.add(allowed[file].index(there))
        assert {k for k in old if not k.endswith(".data")} <= set(found)
    complete(new_args, temporary)
    assert everything(out) == new
    assert hidden(out) == []
    assert [p.name for p in temporary.glob("*onnx-esn*")] == []


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_gives_the_same(tmp_path, prepared):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    args = arguments(LONG["sweep"], out)
    args[args.index(str(IMAGES))] = str(prepared["IMAGES"])
    args += ["--targets", "3", "--methods", "nearest,quantize-only", "--save-models"]
    began = time.monotonic()
    complete(args, temporary)
    whole = time.monotonic() - began
    expected = everything(out)
    again = tmp_path / "again"
    args[args.index(str(out))] = str(again)
    draw = random.Random(0)
    for _ in range(KILLS):
        process = start(args, temporary)
        time.sleep(whole * draw.uniform(0.1, 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for written in again.glob("models/*.onnx"):
            assert written.read_bytes() == expected[f"models/{written.name}"]
        for point in again.glob("points/[!.]*"):
            assert point.read_bytes() == expected[f"points/{point.name}"]
    complete(args, temporary)
    assert everything(again) == expected
    assert hidden(again) == []


def test_models_of_the_same_folder_keep_their_weights(tmp_path):
    """Copied and moved models refer to weights that are called after another file."""
    path, moved, copy = (tmp_path / f"{name}.onnx" for name in ("m", "moved", "copy"))
    save_model(model(1), path, external=True)
    copy.write_bytes(path.read_bytes())
    path.rename(moved)
    save_model(model(2), path, external=True)
    for kept in (copy, moved):
        assert content(kept, "model") == "old"
    assert content(path, "model") == "new"
    copy.unlink()
    moved.unlink()
    save_model(model(3), path, external=True)
    # The weights of the models that went are nobody's to remove; those of the replaced one are.
    assert len(list(tmp_path.glob("m.onnx.*.data"))) == 2
    save_model(model(2), path)
    assert len(list(tmp_path.glob("m.onnx.*.data"))) == 1


def test_what_a_dead_process_left_beside_complete_files_goes_too(tmp_path):
    """A sweep never writes its finished points again: nobody else would come by."""
    kept, held = tmp_path / ".theirs", tmp_path / ".b.json.onnx-esn.lock"
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / ".a.json.onnx-esn.lock").write_text("")
    scratch = tmp_path / ".a.json.onnx-esn.abcdefgh"
    scratch.mkdir()
    kept.write_text("")
    with targets.claimed(tmp_path / "b.json"):
        targets.clean_folder(tmp_path)
        assert held.exists()  # its process lives
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", ".theirs"}
