"""Tables and progress on a terminal of 80 columns, whatever the names are."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.cells import cell_len
from rich.console import Console

from onnx_esn import compare, evaluate, inspect, prune
from onnx_esn.report import progress_bars
from onnx_esn.report.layout import cell, elide, note
from onnx_esn.report.plain_text import visible
from onnx_esn.report.progress_bars import ProgressBars
from onnx_esn.report.tables import (
    comparison_table,
    difference_table,
    group_table,
    inspection_tables,
    skipped_table,
)

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "fashion_resnet.onnx"
NAMES = {
    "long": "backbone/" + "block/" * 40 + "conv{}",
    "wide": "日本語の長い名前のレイヤー" * 5 + "{}",
    "hostile": "\x1b[31m[bold]x[/bold]:car:\x1b[2J\r\n\t\u202e" + "{}" * 1,
    "plain": "c{}",
}
SAMPLES = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)


def chain(name, layers=4, channels=8):
    """1 × 1 convolutions, one after the other."""
    rng = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "x"
    for i in range(layers):
        shape = (channels, 3 if i == 0 else channels, 1, 1)
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], name=name.format(i)))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        tensor = f"r{i}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [value(tensor, TensorProto.FLOAT, ["n", channels, 8, 8])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def render(renderable, width=80):
    console = Console(
        width=width, force_terminal=True, color_system="standard", markup=False, emoji=False
    )
    with console.capture() as capture:
        console.print(renderable)
    text = capture.get()
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\n", "").isprintable()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(cell_len, lines)) <= width
    return lines


@pytest.mark.parametrize("kind", NAMES)
def test_every_table_fits_and_keeps_its_columns(kind):
    model = chain(NAMES[kind])
    pruned = prune(model, ratio=0.5)
    inspection = inspect(model)
    lines = render(inspection_tables(inspection))
    assert any(
        {"op", "kernel", "MACs", "params", "bits", "ESN'_d"} <= set(x.split()) for x in lines
    )
    assert sum("Conv " in x and "1×1" in x for x in lines) == 4, "a line a layer"
    for members in (False, True):
        lines = render(group_table(inspection.groups, members=members))
        assert any({"width", "prunable", "MACs", "share"} <= set(x.split()) for x in lines)
    comparison = evaluate([model, pruned.model], SAMPLES, names=[NAMES[kind], "b"], latency=False)
    render(comparison_table(comparison))
    three = evaluate([model] * 3, SAMPLES, names=[NAMES[kind] + str(i) for i in range(3)],
                     latency=False)  # fmt: skip
    lines = render(comparison_table(three))
    assert any({"MACs", "params", "ESN'_d"} <= set(x.split()) for x in lines)
    for everything in (False, True):
        found = compare(model, pruned.model, SAMPLES, names=[NAMES[kind], "b"])
        lines = render(difference_table(found, everything=everything))
        assert any({"filters", "MACs", "ESN'_d", "output"} <= set(x.split()) for x in lines)
    render(skipped_table(pruned.skipped))


def test_two_thousand_layers_have_a_line_each():
    lines = render(inspection_tables(inspect(chain(NAMES["long"], layers=300), groups=False)))
    assert sum("1×1" in x for x in lines) == 300


@given(st.text(), st.integers(0, 60))
def test_a_cut_name_fits_and_can_be_seen(name, width):
    cut = elide(name, width)
    assert cell_len(cut) <= width
    assert visible(cut) == cut
    assert not set(cut) & {"\n", "\t"}


@given(st.text("abc/._"), st.integers(2, 40))
def test_a_cut_name_keeps_both_ends_and_uses_its_room(name, width):
    cut = elide(name, width)
    if len(name) <= width:
        assert cut == name
        return
    head, tail = cut.split("…")
    assert len(cut) == width
    assert name.startswith(head)
    assert name.endswith(tail)
    assert len(tail) >= len(head)


def test_cells_and_notes_show_what_a_terminal_would_obey():
    for text in (cell("a\x1b[2Jb"), note("a\x1b[2Jb")):
        assert text.plain == "a\\x1b[2Jb"


def progress(*steps):
    """What a terminal of 80 columns gets to see after these steps."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    bars = ProgressBars(console)
    for step in steps:
        bars.show(*step)
    with console.capture() as capture:
        for thing in bars.get_renderables():
            console.print(thing)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    return [line.split() for line in lines if line.strip()]


def test_nothing_is_shown_in_the_first_second(monkeypatch):
    assert progress(("images", 1, 5)) == []
    monkeypatch.setattr(progress_bars, "SECOND", 0.0)
    assert progress(("images", 1, 5)) != []


def test_what_goes_on_is_shown_with_how_much_and_how_long(monkeypatch):
    monkeypatch.setattr(progress_bars, "SECOND", 0.0)
    clock = iter(np.arange(0.0, 1e4, 1.0))
    monkeypatch.setattr("rich.progress.monotonic", lambda: float(next(clock)), raising=False)
    (line,) = progress(*(("images", done, 2000) for done in range(0, 1000, 50)))
    assert "images" in line
    assert "950/2,000" in line
    (line,) = progress(("prune", 0, 1))
    assert line[-2:] == ["so", "far"], "of a single step nobody knows how long it takes"
    assert "0/1" not in line
    (line,) = progress(("one", 0, 5), ("one", 5, 5))
    assert "working" in line
    (line,) = progress(("one", 0, 5), ("one", 5, 5), ("two" * 90, 1, 5))
    assert "1/5" in line
    (line,) = progress(("one", 0, 5), ("one", 5, 5), ("one", 1, 5))
    assert "1/5" in line, "the same once more begins anew"


def test_time_left_is_told_once_it_can_be():
    now = [0.0]
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    bars = ProgressBars(console)
    bars.get_time = lambda: now[0]
    for done in range(0, 60, 10):
        bars.show("images", done, 100)
        now[0] += 10.0
    (left,) = [c for c in bars.columns if type(c).__name__ == "_Left"]
    assert left.render(bars.tasks[1]).plain.endswith(" left")
    assert left.render(bars.tasks[1]).plain.startswith("00:")


def seen(*arguments, **environment):
    """What a terminal of 80 columns gets on stdout and stderr."""
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    mine, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_esn", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**env, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    found = b""
    while True:
        try:
            block = os.read(mine, 1 << 16)
        except OSError:  # what Linux says when the other side is closed
            break
        if not block:
            break
        found += block
    os.close(mine)
    assert process.wait() == 0
    return found.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


def test_colours_are_off_where_they_are_not_wanted(tmp_path):
    model = tmp_path / "m.onnx"
    onnx.save(chain("c{}"), model)
    onnx.save(prune(model, ratio=0.5).model, tmp_path / "p.onnx")
    np.save(tmp_path / "x.npy", SAMPLES)
    arguments = ["compare", model, tmp_path / "p.onnx", "--images", tmp_path / "x.npy"]
    plain = seen(*arguments, NO_COLOR="1")
    assert not COLOUR.search(plain)
    assert "MACs" in plain
    done = subprocess.run(
        [sys.executable, "-m", "onnx_esn", *map(str, arguments)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_brackets_and_colons_in_a_name_are_not_markup(tmp_path):
    target = tmp_path / "[bold]:car:[x].onnx"
    done = seen("prune", MODEL, "-o", target, "--ratio", 0.1)
    assert "[bold]:car:[x].onnx" in done.replace("\r\n", "")
    assert target.exists()
