"""The recipes of docs/cookbook.md, on small networks of the kinds that it speaks of."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from onnx_esn.cli import cli
from tests.docs_console import ROOT, blocks, runs, text_of
from tests.models import MODELS

PAGE = "docs/cookbook.md"
# Model of the page, network that stands in for it, its images and their height and width.
STAND_INS = {
    "detector.onnx": ("yolo_v8", "photos", (6, 6)),
    "recognizer.onnx": ("text_recogniser_without_recurrence", "lines", (4, 8)),
    "segmenter.onnx": ("text_detector", "scenes", (8, 8)),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for model, (name, images, size) in STAND_INS.items():
        onnx.save(MODELS[name].build(), model)
        Path(images).mkdir()
        Path(images, "recipe.toml").write_text("mean = 0.5\n")
        for k in range(12):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{images}/{k}.png")
    return tmp_path


def commands():
    return [c for body in blocks(PAGE, "text") for c, _ in runs(body) if c.startswith("onnx-esn")]


def marked(tag: str, language: str) -> str:
    """The block behind the comment that names it."""
    found = re.search(rf"<!-- runs: {tag} -->\n```{language}\n(.*?)```", text_of(PAGE), re.S)
    assert found is not None
    return found[1]


def test_each_kind_of_network_has_commands():
    assert {c.split()[2] for c in commands()} == set(STAND_INS)


def test_commands_do_what_the_page_says(folder):
    for command in commands():
        words = shlex.split(command)[1:]
        model = onnx.load(words[1])
        height, width = STAND_INS[words[1]][2]
        shape = f"1,3,{height},{width}"
        words = [shape if re.fullmatch(r"1,3,\d+,\d+", word) else word for word in words]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, (command, result.output)
        if "-o" in words:
            made = onnx.load(words[words.index("-o") + 1])
            assert [o.name for o in made.graph.output] == [o.name for o in model.graph.output]
        if words[0] == "compress":  # the page says which
            assert ("top-1" in result.output) == (words[1] == "recognizer.onnx")


def test_boxes_are_counted(folder, capsys):
    shutil.copy("detector.onnx", "small.onnx")
    code = marked("detect", "python").replace("least=0.25", "least=0.0")
    exec(compile(code, PAGE, "exec"), {"__name__": "snippet"})
    found, again = map(int, re.findall(r"\d+", capsys.readouterr().out))
    assert found == again > 0


@pytest.mark.parametrize(
    ("limit", "code"), [("0.98", 0), pytest.param("1.01", 1, marks=pytest.mark.slow)]
)
def test_the_pipeline_fails_where_it_should(tmp_path, limit, code):
    shutil.copy(ROOT / "examples" / "fashion_resnet.onnx", tmp_path / "model.onnx")
    shutil.copytree(ROOT / "calibration" / "fashion-mnist", tmp_path / "my-images")
    script = marked("ci", "sh").replace(">= 0.98", f">= {limit}")
    assert limit in script
    # Quicker than what the page does, with the same gates.
    script = script.replace("--target-cost 10%", "--bits 3 --batch-size 128")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"of the decisions" in done.stdout


def test_the_workflows_run_the_same_gates():
    for body in blocks(PAGE, "yaml"):
        for command in re.findall(r"onnx-esn (?!$)(\w+ .*)$", body, re.M):
            words = shlex.split(command)
            assert command in marked("ci", "sh") or words[0] == "install"
