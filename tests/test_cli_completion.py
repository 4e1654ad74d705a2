"""Shell completion, as docs/cli.md says to turn it on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLI = Path(__file__).parents[1] / "docs" / "cli.md"
PROGRAM = Path(sys.executable).parent / "onnx-esn"
SHELLS = re.findall(r"_ONNX_ESN_COMPLETE=([a-z]+)_source", CLI.read_text(encoding="utf-8"))
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="onnx-esn is not installed here")


def completed(words: list[str]) -> set[str]:
    """What bash would offer for the last of the words."""
    settings = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [PROGRAM],
        env={**os.environ, **settings, "_ONNX_ESN_COMPLETE": "bash_complete"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {line.split(",", 1)[1] for line in done.stdout.splitlines()}


def test_the_page_names_three_shells():
    assert SHELLS == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_is_one(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run(
        [PROGRAM],
        env={**os.environ, "_ONNX_ESN_COMPLETE": f"{shell}_source"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert b"onnx-esn" in script
    subprocess.run([shell, "-n"], input=script, check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["onnx-esn", "comp"], {"compare", "compress"}),
        (["onnx-esn", "quantize", "--quant"], {"--quantizer"}),
        (["onnx-esn", "convert", "--format", ""], {"fake", "qdq", "qonnx"}),
    ],
)
def test_verbs_options_and_values_complete(words, offered):
    assert completed(words) == offered
