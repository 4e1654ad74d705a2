"""Hostile plans, policies, latency models and labels: one line and exit code 2."""

from __future__ import annotations

import pytest

from tests.hostile import documents
from tests.hostile.images import good
from tests.hostile.runs import Runner
from tests.hostile.verbs import Bench

KINDS = {
    "plan": documents.ANY | documents.PLANS,
    "quantization": documents.ANY | documents.QUANTIZATIONS,
    "policy": documents.ANY | documents.POLICIES,
    "latency": documents.ANY | documents.LATENCIES,
    "labels": documents.LABELS,
}
# Well formed, and of no consequence: nothing is removed, or a time is absurd.
ALLOWED = {"bias beyond", "bias of another length", "plans in plans", "huge"}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("worker")) as started:
        yield started


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Command lines by kind of document, and the file that each reads."""
    folder = tmp_path_factory.mktemp("bench")
    bench = Bench(folder)
    images = good(folder / "set")
    document, labels = folder / "document.json", folder / "labels.csv"
    output = ["-o", bench.output]
    model = bench.sound
    latency = ["--selection", "qcqp", "--target-latency", "50%", "--solver-time", 2]
    return {
        "plan": (["prune", model, *output, "--plan", document], document),
        "quantization": (["quantize", model, *output, "--plan", document], document),
        "policy": (["quantize", model, *output, "--policy", document], document),
        "latency": (["prune", model, *output, *latency, "--latency-model", document], document),
        "labels": (["evaluate", model, "--images", images, "--labels", labels], labels),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_documents(runner, commands, kind):
    arguments, path = commands[kind]
    for name, content in KINDS[kind].items():
        path.write_bytes(content)
        ending = runner(*arguments, results=[path.parent / "out.onnx"])
        assert not ending.fault, f"{name}: {ending.said[-1000:]}"
        assert ending.kilobytes < 500 * 1024
        if name not in ALLOWED:
            assert ending.code == 2, f"{name}: {ending.said[-1000:]}"
