"""The point that a sweep's report looks into, and the commands of all of them."""

from __future__ import annotations

import shlex

import pytest

from onnx_esn.cli.commands.compressing import compress as command
from onnx_esn.report.page.choosing import choose_point, point_command, point_options
from onnx_esn.search.methods import METHODS
from tests.report.sweeps import methods_document, sweep_document


def sweep(*points, metric="accuracy", reference=0.9):
    """A document of points: cost, quality, on the front."""
    return {
        "metric": metric,
        "input": {metric: reference},
        "points": [
            {"status": "done", "esn_prime": cost, metric: quality, "pareto": on}
            for cost, quality, on in points
        ],
    }


@pytest.mark.parametrize(
    ("document", "index"),
    [
        (sweep((9, 0.9, True), (5, 0.895, True), (2, 0.885, True)), 1),
        (sweep((9, 0.9, True), (5, 0.895, False), (2, 0.885, True)), 0),
        (sweep((9, 0.85, True), (5, 0.8, True)), 0),
        (sweep((9, 0.991, True), (5, 0.989, True), metric="top1", reference=1.0), 0),
        (sweep((9, 30, True), (5, 20, True), (4, 19.9, True), metric="snr_db", reference=None), 1),
    ],
)
def test_the_cheapest_that_is_good_enough(document, index):
    assert choose_point(document)[0] == index


def test_an_output_without_noise_is_good_enough():
    document = sweep((9, None, True), (5, 3.0, True), metric="snr_db", reference=None)
    document["points"][0]["normalized_error"] = 0
    assert choose_point(document)[0] == 0


def test_the_rule_says_so_where_none_is():
    assert "no point has" in choose_point(sweep((9, 0.5, True)))[1]


@pytest.mark.parametrize("document", [methods_document(), sweep_document()])
def test_a_point_on_the_front_is_chosen(document):
    index, _ = choose_point(document)
    assert document["points"][index]["pareto"]


def test_nothing_is_chosen_where_nothing_was_finished():
    document = methods_document()
    for point in document["points"]:
        point.update(status="failed", pareto=False)
    assert choose_point(document) is None


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("target", [9.0, 3.0, 1.7])
def test_the_command_of_a_method_has_its_options(method, target):
    check({"method": method, "target": target, "ratio": None, "bits": None})


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3])
def test_the_command_of_a_grid_has_its_options(ratio):
    check({"method": None, "target": None, "ratio": ratio, "bits": 3})


def check(point):
    """The command line reads what `compress` would have been called with, and nothing else."""
    options = point_options(point, 12_345_679, "thorough")
    words = point_command("a b.onnx", "out.onnx", options, ["--images", "it's"])
    read = [shlex.split(word)[0] for word in words]
    assert read[:2] == ["onnx-esn", "compress"]
    usual = command.make_context("compress", ["m", "-o", "o", "--images", "i"]).params
    given = command.make_context("compress", read[2:]).params
    assert str(given["images"]) == "it's"
    assert str(given["model"]) == "a b.onnx"
    changed = {k: v for k, v in given.items() if v != usual[k]}
    changed = {k: v for k, v in changed.items() if k not in ("model", "output", "images")}
    for name in ("target_cost", "target_macs"):
        if name in changed:
            changed[name] = float(changed[name])
    wanted = {k: v for k, v in options.items() if v is not None and v != usual[k]}
    assert changed == wanted
