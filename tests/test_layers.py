"""Imports point down only, and the heavy libraries stay behind their doors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "onnx_esn"

# From the top; packages on one line do not know each other.
LAYERS = [
    {"cli", "__main__", "integrations"},
    {"report", "search", "cluster", "__init__"},
    {"pipeline", "verbs", "evaluation"},
    {"passes"},
    {"formats"},
    {"graph", "calibration"},
    {"numerics"},
    {"plans", "budgets", "outside"},
    {"shelf", "targets", "temporary", "urls"},
    {"companions", "file_search", "locks"},
    {"errors", "version"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
DOORS = {
    "onnxruntime": {"calibration/session.py", "calibration/ranges.py"},
    "onnx_graphsurgeon": {"graph/rewrite/surgery.py", "graph/rewrite/bias.py"},
    "olive": {"integrations/olive.py"},
    "dask": set(),
    "distributed": {"cluster/connection.py"},
    "cloudpickle": {"cluster/payload.py"},
    "fsspec": {"calibration/remote.py"},
    "torch": set(),
    "torchvision": set(),
    "tensorflow": set(),
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path):
    """Dotted names that a file imports, those for type checkers only included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(parts):
    """The package or top-level module that a path belongs to."""
    return Path(parts[0]).stem


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = unit(path.relative_to(ROOT).parts)
    assert own in LEVEL, f"{own} has no place in the layers"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "onnx_esn" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        other = parts[1]
        assert other == own or LEVEL[other] > LEVEL[own] or same_level(own, other), (
            f"{path.relative_to(ROOT)} imports {name}: {own} may not know {other}"
        )


def same_level(own, other):
    """Helpers of one level may know each other, graph and calibration may not."""
    return LEVEL[own] == LEVEL[other] and LEVEL[own] != LEVEL["graph"]


# Inside `graph`: each may know those after it; the files of `graph` itself know none of them.
INSIDE_GRAPH = ["norms", "rewrite", "channels"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("graph/**/*.py")), ids=lambda p: p.stem)
def test_imports_inside_graph_point_down(path):
    own = path.parent.name
    below = INSIDE_GRAPH[INSIDE_GRAPH.index(own) :] if own in INSIDE_GRAPH else []
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] == ["onnx_esn", "graph"] and len(parts) > 2 and parts[2] in INSIDE_GRAPH:
            assert parts[2] in below, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_behind_their_doors(path):
    for name in imports(path):
        allowed = DOORS.get(name.split(".")[0])
        if allowed is not None:
            assert path.relative_to(ROOT).as_posix() in allowed, f"imports {name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("integrations/*.py")), ids=lambda p: p.stem)
def test_integrations_use_what_is_public(path):
    """What another tool calls must be open to everyone who writes the next integration."""
    own = [n for n in imports(path) if n.split(".")[0] == "onnx_esn"]
    assert [n for n in own if n.split(".")[:2] not in (["onnx_esn"], ["onnx_esn", "errors"])] == []
