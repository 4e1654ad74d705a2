"""The same command gives the same bytes, whatever threads, listings, hash seeds and folders."""

from __future__ import annotations

import json
import subprocess
import sys

import onnx
import pytest

from .commands import ROOT, environment, start
from .hashes import image_folder, small_model

QUICK = ("recalibrate", "quantize", "reconstruct")


def hashes(temporary, threads, order, *chosen, **env):
    out = subprocess.run(
        [sys.executable, "-m", "tests.faults.hashes", str(threads), order, *chosen],
        env=environment(temporary, **env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(out)


def test_threads_and_order_change_nothing(tmp_path):
    expected = hashes(tmp_path, 1, "forwards", *QUICK, PYTHONHASHSEED="1")
    assert set(expected) == set(QUICK)
    assert hashes(tmp_path, 2, "backwards", *QUICK, PYTHONHASHSEED="2") == expected


@pytest.mark.slow
def test_all_verbs_over_ten_runs(tmp_path):
    expected = hashes(tmp_path, 1, "forwards")
    assert len(expected) == 12
    for run in range(1, 10):
        order = ("forwards", "backwards")[run % 2]
        assert hashes(tmp_path, 1 + run % 2, order, PYTHONHASHSEED=str(run)) == expected, run


@pytest.fixture
def case(tmp_path):
    onnx.save(small_model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx", image_folder(tmp_path)


def test_commands_use_one_thread_for_linear_algebra(case, tmp_path):
    """However many the caller's environment asks for: they show in the last digits of sums."""
    model, images = case
    written = []
    for threads in (1, 2):
        out, cwd = tmp_path / f"{threads}.onnx", tmp_path / f"cwd{threads}"
        cwd.mkdir()
        args = ["quantize", str(model), "-o", str(out), "--bits", "3", "--images", str(images)]
        env = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        process = start([*args, "--threads", str(threads)], tmp_path / "tmp", env=env, cwd=cwd)
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_a_plan_replays_to_the_same_bytes(case, tmp_path):
    from tests.test_cli import run

    model, images = case
    first, again, plan = (tmp_path / name for name in ("a.onnx", "b.onnx", "p.json"))
    for verb in (
        ("quantize", model, "--bits", 3, "--images", images),
        ("prune", model, "--ratio", 0.3),
    ):
        run(*verb, "-o", first, "--plan-out", plan)
        run(verb[0], model, "-o", again, "--plan", plan)
        assert first.read_bytes() == again.read_bytes()
