"""Hostile models: every verb refuses them in one line, or writes a model that passes the checker.

Each command runs in a fork of its own, within limits of time and memory: nothing may crash, hang
or swell. Running what has to be run is left to the slow tests.
"""

from __future__ import annotations

import pytest

from tests.hostile import (
    models_declared,
    models_external,
    models_graphs,
    models_nested,
    models_sizes,
    models_tensors,
    runs,
)
from tests.hostile.models import HOSTILE
from tests.hostile.runs import Runner
from tests.hostile.verbs import Bench

assert all((models_declared, models_external, models_graphs, models_nested, models_sizes))
assert models_tensors  # with them, all hostile models are known

# Of memory held: what the imports take, and little more; where onnxruntime runs the model, what it
# takes for that, up to the limit of the runner. Running it may take minutes, too.
MEGABYTES, RUNNING = 600, 600 + runs.MEGABYTES
# Their sizes are honest: reading them, or running what they ask for, takes its time.
LARGE = {
    "twenty_thousand_nodes", "a_node_with_a_hundred_thousand_inputs", "a_loop_without_end",
    "a_hundred_thousand_initializers",
}  # fmt: skip
FEW = ("inspect", "prune", "fake", "compare")
# One of each kind meets all that the fast tests have time for.
TYPICAL = (
    "cyclic", "missing_initializer", "huge_sparse_weight", "no_filters", "not_a_number",
    "expanded_weight", "range_value", "functions_that_double", "above_large", "names_with_controls",
)  # fmt: skip


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("worker")) as started:
        yield started


def meet(runner, folder, name, chosen=None, **limits):
    """Run verbs on a hostile model; fails with the first that ends as none may."""
    folder.mkdir(exist_ok=True)
    case = HOSTILE[name]
    model = case.build(folder)
    bench = Bench(folder)
    for verb, arguments in bench.commands(model).items():
        if chosen is not None and verb not in chosen:
            continue
        bench.output.unlink(missing_ok=True)
        running = verb not in bench.fast(model)
        within = limits | {"seconds": 300} if running else limits
        ending = runner(*arguments, results=[bench.output], **within)
        told = f"{verb}: {ending.fault}\n{ending.said[-2000:]}"
        assert not ending.fault, told
        most = RUNNING if running else MEGABYTES
        assert ending.kilobytes < most * 1024, f"{verb} took {ending.kilobytes} kB"
        if case.says:
            assert ending.code == 2, told
            assert case.says in ending.said, told


@pytest.mark.parametrize("name", TYPICAL)
def test_typical_models(runner, tmp_path, name):
    meet(runner, tmp_path, name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(HOSTILE) - LARGE))
def test_every_model_and_verb(runner, tmp_path, name):
    meet(runner, tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_models_are_read(runner, tmp_path, name):
    meet(runner, tmp_path, name, ("inspect", "fake"), seconds=300)


def test_every_refusal_of_a_file_is_fast(runner, tmp_path):
    """All that is refused before any verb begins, by `inspect`."""
    for name, case in HOSTILE.items():
        if case.says:
            meet(runner, tmp_path / name, name, ("inspect",))


def test_names_reach_no_terminal_as_commands(runner, tmp_path):
    model = HOSTILE["names_with_controls"].build(tmp_path)
    for arguments in (["inspect", model], ["inspect", model, "--groups", "-v"]):
        said = runner(*arguments).said
        assert "red" in said
        assert not {"\x1b", "\x00", "\u202e"} & set(said)
