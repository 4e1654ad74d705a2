"""The docs keep up with the code: links, options, fields, snippets, outputs."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import sys

import numpy as np
import pytest

import onnx_esn
from onnx_esn.cli import cli
from onnx_esn.formats import FORMATS
from onnx_esn.graph.channels import rules as channel_rules
from onnx_esn.graph.gradients import rules as gradient_rules
from onnx_esn.passes.exact import rules as exact_rules
from onnx_esn.passes.pruning.scores import CRITERIA
from onnx_esn.report.summaries import result_document
from onnx_esn.search.point import Figures, Point
from tests import docs_options
from tests.docs_console import (
    FENCE,
    PAGES,
    ROOT,
    blocks,
    brought_up_to_date,
    run_all,
    runs,
    text_of,
)

SAMPLE = ROOT / "examples" / "fashion_resnet.onnx"


def slugs(text):
    """Anchors of the headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


def section(page, heading):
    parts = re.split(r"^## (.*)$", text_of(page), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


@pytest.mark.parametrize(
    "page", [*PAGES, "README.md", "CONTRIBUTING.md", "SECURITY.md", "calibration/README.md"]
)
def test_relative_links_and_images_resolve(page):
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(page)))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page}: {target} does not exist"
        assert ROOT in linked.resolve().parents, f"{page}: {target} leaves the project"
        if anchor:
            assert anchor in slugs(linked.read_text(encoding="utf-8")), f"{page}: no {target}"


def test_the_map_names_every_page():
    linked = set(re.findall(r"\]\(([^)\s]+\.md)\)", text_of("docs/index.md")))
    assert {p.removeprefix("docs/") for p in PAGES} - {"index.md"} <= linked


def test_every_verb_has_a_section():
    assert set(cli.commands) <= set(re.findall(r"^## (.*)$", text_of("docs/cli.md"), re.M))


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_the_tables_of_options_are_those_of_the_command_line(verb):
    assert docs_options.table(verb) in section("docs/cli.md", verb), (
        "run python -m tests.docs_options"
    )


def test_options_of_every_verb_are_explained_once():
    for name in ("--quiet", "--verbose", "--json", "--help"):
        assert f"`{name}`" in section("docs/cli.md", "Options of every verb")


def test_links_of_the_tables_belong_to_options():
    known = {
        name
        for verb, command in cli.commands.items()
        for option in command.params
        for name in (*option.opts, *(f"{verb} {o}" for o in option.opts))
    }
    assert set(docs_options.SEE) <= known


@pytest.mark.parametrize("page", PAGES)
def test_commands_begin_with_known_verbs(page):
    for command in commands(page):
        words = shlex.split(command)
        assert words[0] in ("onnx-esn", "cmp"), command
        assert words[0] == "cmp" or words[1] in cli.commands, command


def test_the_quickstart_shows_commands():
    assert len(commands("docs/quickstart.md")) > 5


def commands(page):
    return [c for body in blocks(page, "console") for c, _ in runs(body)]


def keys_of(document):
    if isinstance(document, dict):
        found = {k for k in document if re.fullmatch(r"[a-z][a-z0-9_]*", k)}
        return found.union(*(keys_of(v) for v in document.values()))
    return set().union(*map(keys_of, document)) if isinstance(document, list) else set()


def test_the_fields_of_the_documents_are_explained():
    pruned = onnx_esn.prune(SAMPLE, ratio=0.1)
    quantized = onnx_esn.quantize(SAMPLE, bits=4)
    few = np.random.default_rng(0).normal(size=(4, 1, 28, 28)).astype(np.float32)
    evaluation = onnx_esn.evaluate([SAMPLE, pruned.model], few, labels=np.zeros(4, np.int64))
    inspection = onnx_esn.inspect(SAMPLE).to_document()
    del inspection["input_shapes"]  # names of inputs
    fields = keys_of(inspection) | keys_of(evaluation.to_document())
    fields |= keys_of(result_document("prune", [("prune", pruned), ("quantize", quantized)], {}))
    for kind in (Figures, Point, *map(type, (pruned.plan, quantized.plan))):
        fields |= {f.name for f in dataclasses.fields(kind)}
    for entry in (pruned.plan.slices[0], pruned.plan.groups[0], quantized.plan.layers[0]):
        fields |= {f.name for f in dataclasses.fields(entry)}
    text = text_of("docs/json.md")
    # Columns of the sweep that the page abbreviates, and one that is spread out.
    fields -= {"figures", "input"}
    assert {f for f in fields if f"`{f}`" not in text} == set()


@pytest.fixture
def folder(tmp_path, monkeypatch, slim, few):
    """The folder that the snippets speak of, with some of the sample images."""
    shutil.copy(slim, tmp_path / "model.onnx")
    shutil.copytree(few, tmp_path / "my-images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registries():
    """The tables that docs/extending.md adds to, as they were afterwards."""
    tables = [CRITERIA, FORMATS, channel_rules.RULES, exact_rules.RULES, gradient_rules.RULES]
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.mark.parametrize("page", ["docs/python.md", "docs/extending.md", "docs/report.md"])
def test_python_snippets_run(page, folder, registries, capsys):
    names: dict[str, object] = {"__name__": "snippet"}
    sys.modules["snippet"] = sys.modules[__name__]  # dataclasses look their module up
    try:
        for body in blocks(page, "python"):
            exec(compile(body, page, "exec"), names)
    finally:
        del sys.modules["snippet"]


@pytest.mark.slow
def test_the_console_blocks_look_like_the_real_output(tmp_path):
    """Numbers may differ from machine to machine, words may not."""
    missing = [
        f"{page}: {command}: {line}"
        for page, command, shown, real in run_all(tmp_path)
        for line in brought_up_to_date(shown, real)[1]
    ]
    assert not missing, "\n".join(missing)
