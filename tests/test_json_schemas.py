"""The JSON Schema files of docs/schemas hold for what the commands really print and write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onnx_esn.cli import cli
from tests.docs_console import ROOT, text_of

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
referencing = pytest.importorskip("referencing")

SAMPLE = str(ROOT / "examples" / "fashion_resnet.onnx")
SCHEMAS = {
    path.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "docs" / "schemas").glob("*.json"))
}
BY_NAME = {
    (s["properties"].get("schema") or s["properties"]["format"])["const"]: s
    for s in SCHEMAS.values()
}
REGISTRY = referencing.Registry().with_resources(
    [(s["$id"], referencing.Resource.from_contents(s)) for s in SCHEMAS.values()]
)
IMAGES = ["--images", "x.npz", "--batch-size", "8"]

# A command, and the files that it writes beside its document.
QUICK = [
    ("inspect MODEL --ratios-out ratios.json", ["ratios.json"]),
    ("prune MODEL -o o.onnx --ratio .3 --plan-out plan.json", ["plan.json"]),
    ("prune MODEL -o o.onnx --exact --ratio .1 --plan-out plan.json", ["plan.json"]),
    ("prune MODEL -o o.onnx --granularity spatial --ratio .2 --plan-out p.json", ["p.json"]),
    ("quantize MODEL -o q.onnx --target-cost 5% --plan-out plan.json", ["plan.json"]),
    ("quantize MODEL -o o.onnx --bits 3 --method aciq --plan-out plan.json", ["plan.json"]),
    ("quantize MODEL -o o.onnx --bits 3 --format qdq", []),
    ("equalize MODEL -o o.onnx", []),
    ("rotate MODEL -o o.onnx", []),
    ("annotate MODEL -o o.onnx", []),
    ("recalibrate MODEL -o o.onnx IMAGES", []),
    ("evaluate MODEL MODEL IMAGES", []),
    ("compare MODEL MODEL", []),
    ("trace epoch_0.npz epoch_1.npz", []),
]
SLOW = [
    ("prune MODEL -o o.onnx --selection qcqp --target-macs 60% --solver-time 2", []),
    ("quantize MODEL -o o.onnx --bits 3 --method qil --epochs 1 IMAGES", []),
    ("quantize MODEL -o o.onnx --bits 4 --activations uint8 IMAGES", []),
    ("compress MODEL -o o.onnx --target-cost 6% --report r.json IMAGES", []),
    ("compress MODEL -o o.onnx --ratio .2 --bits 4 --learn --epochs 1 --format qdq IMAGES", []),
    ("analyze MODEL IMAGES", []),
    ("analyze MODEL", []),
    ("profile MODEL -o latency.json --points 4 --repeat 1", ["latency.json"]),
    ("sweep MODEL --targets 2 --methods nearest,joint -o s IMAGES", ["s/sweep.json"]),
    ("sweep MODEL --ratios 0,.5 --bits 4 -o s IMAGES", ["s/sweep.json"]),
]
COMMANDS = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 1, 28, 28)).astype(np.float32)
    np.savez("x.npz", x=x, y=rng.integers(0, 10, 16))
    W = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    for epoch in range(2):
        np.savez(f"epoch_{epoch}.npz", **{"conv.weight": W * (1 + 0.1 * epoch)})
    return tmp_path


def run(command: str) -> dict[str, object]:
    words = [w for part in command.split() for w in (IMAGES if part == "IMAGES" else [part])]
    result = CliRunner().invoke(cli, [SAMPLE if w == "MODEL" else w for w in words] + ["--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def check(document: dict[str, object]) -> None:
    schema = BY_NAME[document.get("schema") or document["format"]]
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(document)


@pytest.mark.parametrize(("command", "written"), COMMANDS)
def test_documents_are_as_their_schemas_say(folder, command, written):
    document = run(command)
    check(document)
    for name in written:
        check(json.loads(Path(name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], "onnx-esn/inspection/2"),
        (["layers"], None),
        (["layers", 0, "macs"], "113k"),
        (["layers", 0, "macs"], -1),
        (["layers", 0, "op"], "Relu"),
        (["layers", 0, "bits"], {"four": 1}),
        (["totals", "esn_prime"], None),
    ],
)
def test_a_document_that_is_wrong_is_refused(folder, path, value):
    document = run("inspect MODEL")
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    name = "onnx-esn/inspection/1"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(BY_NAME[name], registry=REGISTRY).validate(document)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_the_page_links_it(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert f"(schemas/{name})" in text_of("docs/json.md")


def fields(schema: object) -> set[str]:
    """Names of the fields that a schema describes."""
    if isinstance(schema, list):
        return set().union(*map(fields, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(fields, schema.values()))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_page_explains_every_field_of_a_schema(name):
    explained = set(re.findall(r"`([a-z0-9_]+)`", text_of("docs/json.md")))
    assert fields(SCHEMAS[name]) - explained == set()


def test_every_schema_name_in_the_code_has_a_file():
    named = set()
    for path in (ROOT / "onnx_esn").rglob("*.py"):
        named |= set(re.findall(r'"(onnx-esn/[a-z-]+(?:/\d+)?)"', path.read_text(encoding="utf-8")))
    # Parts of a sweep's folder and of the report page: nobody else is to read them.
    assert named - {"onnx-esn/sweep-point/2", "onnx-esn/report/1"} == set(BY_NAME)
