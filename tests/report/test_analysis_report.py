"""The table and the plots of `analyze`, and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import lru_cache

import numpy as np
import onnx
import pytest
from rich.cells import cell_len
from rich.console import Console

from onnx_esn.errors import OptionError
from onnx_esn.evaluation.analysis import analyze
from onnx_esn.report.analysis_plot import draw_layers, draw_snr, plot_analysis
from onnx_esn.report.analysis_table import analysis_table
from tests.passes.layerwise.samples import smooth
from tests.passes.quantizing.test_compensation import network
from tests.test_cli import fails, run


@lru_cache
def text_of_document(images: bool) -> str:
    found = analyze(network(), smooth(16) if images else None)
    return json.dumps(found.to_document())


def document(images=True):
    return json.loads(text_of_document(images))


def render(found, *, width=100, everything=False):
    console = Console(width=width, force_terminal=False, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(analysis_table(found, everything=everything))
    text = capture.get()
    assert all(cell_len(line) <= min(width, 80) for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("everything", [False, True])
def test_it_fits(width, images, everything):
    found = document(images)
    found["layers"][0]["name"] = "a/very/long/name/of/a/layer/" * 4
    found["layers"][1]["excess_kurtosis"] = None
    text = render(found, width=width, everything=everything)
    assert all(sentence.split()[0] in text for sentence in found["recommendation"])
    if images:
        assert "Bits or channels?" in text
        assert "proven" in text


def test_the_figures_are_those_of_the_document():
    found = document()
    text = render(found, width=80)
    row = next(line.split() for line in text.splitlines() if line.startswith("d "))
    layer = next(x for x in found["layers"] if x["name"] == "d")
    four = next(x for x in layer["weight_snr"] if x["bits"] == 4)
    two = next(x for x in layer["outputs"][0]["snr"] if x["bits"] == 2)
    assert row[2] == f"{four['quantized']:.1f}/{four['pruned']:.1f}"
    assert row[5] == f"{two['quantized']:.1f}/{two['pruned']:.1f}"
    assert row[6] == layer["advice"] == "quantize"


def test_one_screen_shows_where_quantization_leads_least():
    found = document(images=False)
    one = found["layers"][0]
    found["layers"] = [json.loads(json.dumps({**one, "name": f"l{i:02}"})) for i in range(40)]
    for i, layer in enumerate(found["layers"]):
        layer["weight_snr"][-1]["quantized"] = 50.0 - i
    text = render(found)
    shown = [line.split()[0] for line in text.splitlines() if re.match(r"l\d", line)]
    assert shown == [f"l{i}" for i in range(28, 40)]
    assert "12 of 40 layers" in text
    assert len(text.splitlines()) < 40
    assert "of 40 layers" not in render(found, everything=True)


def test_what_is_exact_or_unknown():
    found = document()
    found["layers"][0]["weight_snr"][1]["quantized"] = None
    found["layers"][1]["outputs"] = []
    found["whole_model"]["losses"][0]["pruned"] = None
    text = render(found, everything=True)
    assert "∞/" in text
    assert "–" in text
    draw_layers(found)
    draw_snr(found)


def test_no_layer_no_table():
    found = document(images=False)
    found.update(layers=[], summary=[], recommendation=["There is nothing to compare."])
    assert render(found).split() == ["•", "There", "is", "nothing", "to", "compare."]
    with pytest.raises(OptionError, match="nothing to draw"):
        plot_analysis(found, ".")


def test_plots(tmp_path):
    paths = plot_analysis(document(), tmp_path)
    assert [p.name for p in paths] == ["snr.png", "snr.svg", "layers.png", "layers.svg"]
    before = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in plot_analysis(document(), tmp_path)] == before


def test_the_plot_has_every_tensor_and_density():
    found = document()
    axes = draw_snr(found).axes[0]
    assert len(axes.get_lines()) == 2 * len(found["theory"])
    points = [c.get_offsets() for c in axes.collections]
    assert [len(p) for p in points] == [4 * len(found["layers"])] * 2
    left, right = draw_layers(found).axes
    for axes, bits in ((left, 4), (right, 2)):
        (weights, outputs) = (c.get_offsets() for c in axes.collections if len(c.get_offsets()) > 1)
        leads = [
            next(s["quantized"] - s["pruned"] for s in x["weight_snr"] if s["bits"] == bits)
            for x in found["layers"]
        ]
        np.testing.assert_allclose(weights[:, 0], leads)
        assert len(outputs) == len(found["layers"])


@pytest.fixture
def files(tmp_path):
    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", smooth(12))
    return tmp_path


def test_the_command(files):
    out = files / "out"
    done = run("analyze", files / "m.onnx", "--images", files / "x.npy", "-o", out)
    assert "whole model" in done.stdout
    names = {"analysis.json", "weights.csv", "theory.csv", "outputs.csv", "channels.csv"}
    plots = {f"{n}.{kind}" for n in ("snr", "layers") for kind in ("png", "svg")}
    assert {p.name for p in out.iterdir()} == names | plots
    told = done.stdout.replace("\n", " ")
    assert all(name in told for name in names)
    assert json.loads((out / "analysis.json").read_text("utf-8"))["model"] == "m.onnx"


def test_json_is_the_document_alone(files):
    done = run("analyze", files / "m.onnx", "--json", "-o", files / "out")
    assert json.loads(done.stdout) == json.loads((files / "out/analysis.json").read_text("utf-8"))


def test_wrong_usage(files):
    assert "no such file" in fails("analyze", files / "a.onnx")
    assert "is a file" in fails("analyze", files / "m.onnx", "-o", files / "x.npy")
    assert "give the images" in fails("analyze", files / "m.onnx", "--recipe", "r.toml")
    assert "onnx-esn analyze model.onnx" in run("analyze", "--help").output


def test_without_matplotlib_there_are_figures_all_the_same(files):
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.style'] = None; "
        "from onnx_esn.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "analyze", files / "m.onnx", "-o", files / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no plot: plots need matplotlib" in done.stderr
    assert (files / "out/weights.csv").exists()
    assert not (files / "out/snr.png").exists()
