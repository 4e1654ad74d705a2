"""Sweeps over methods and targets; grids are in test_sweep.py."""

import csv
import json
import math

import pytest

from onnx_esn.errors import BudgetError, OperationError, OptionError
from onnx_esn.evaluation import Comparison, Evaluation, OutputAgreement
from onnx_esn.numerics.agreement import Agreement
from onnx_esn.search.methods import DEFAULT, METHODS, method_jobs
from onnx_esn.search.sweep import sweep

from .test_sweep import Result, contents, images, tiny_model

MACS = 4 * 3 * 16  # of tiny_model


def agreed(loss):
    return OutputAgreement("y", Agreement(1 - loss, 1 - loss, 20.0, loss, loss, 6))


class Fake:
    """Better with every bit, and with every option that plain rounding has not."""

    def __init__(self, fail=()):
        self.calls, self.fail = [], fail

    def __call__(self, model, data, *, batch_size, latency, **options):
        self.calls.append(options)
        cost = options.get("target_cost", 8 * MACS)
        if cost / MACS in self.fail:
            raise BudgetError("cannot be reached")
        loss = (0.08 if "method" in options else 0.04) * MACS / cost
        figures = [
            Evaluation(name, MACS, 12, paid, paid / MACS, 100, None, (entry,), entry, None)
            for name, paid, entry in (("in", 32.0 * MACS, agreed(0)), ("out", cost, agreed(loss)))
        ]
        return Result(tiny_model(), Comparison(tuple(figures), 0, data.name, len(data)))


def run(out, compress=None, **options):
    return sweep(tiny_model(), images(), out, compress=compress or Fake(), **options)


def test_options_of_each_method():
    found = {
        job.point.method: job.options for job in method_jobs(tuple(METHODS), (2,), 1000, "fast")
    }
    assert found == {
        "nearest": {"method": "nearest", "target_cost": 2000},
        "quantize-only": {"target_cost": 2000, "channels": False, "effort": "fast"},
        "prune-only": {"bits": 8, "target_cost": 2000, "effort": "fast"},
        "prune-then-quantize": {
            "target_macs": 500,
            "criterion": "reconstruction",
            "target_cost": 2000,
            "effort": "fast",
        },
        "joint": {"target_cost": 2000, "effort": "fast"},
        "aciq": {"method": "aciq", "target_cost": 2000},
    }


@pytest.mark.parametrize("target", [8, 9.5])
def test_eight_bits_need_no_pruning(target):
    jobs = method_jobs(("prune-only", "prune-then-quantize"), (target,), 1000, "fast")
    assert jobs[0].options == {"bits": 8}
    assert "target_macs" not in jobs[1].options
    assert jobs[1].options["channels"] is False


def test_methods_are_the_default(tmp_path):
    compress = Fake()
    result = run(tmp_path, compress)
    assert [(p.method, p.target) for p in result.points] == [
        (method, target) for method in DEFAULT for target in (4, 3, 2, 1)
    ]
    assert [call["target_cost"] / MACS for call in compress.calls] == [4, 3, 2, 1] * 5
    assert set(DEFAULT) == {*METHODS} - {"aciq"}
    again = Fake()
    before = contents(tmp_path)
    assert run(tmp_path, again).computed == 0
    assert again.calls == []
    assert contents(tmp_path) == before


def test_effort_is_part_of_the_key(tmp_path):
    run(tmp_path, targets=(2,), methods=("nearest", "joint"))
    compress = Fake()
    run(tmp_path, compress, targets=(2,), methods=("nearest", "joint"), effort="fast")
    assert [call.get("effort") for call in compress.calls] == ["fast"]


def test_figures(tmp_path):
    run(tmp_path, targets=(2,), methods=("joint",))
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    (point,) = document["points"]
    # Every weight of tiny_model is the same: ±0.5 and one bit.
    assert point["esn_a"] == MACS / 4
    assert point["esn_d"] == MACS
    assert point["bit_widths"] == {**{str(b): 0 for b in range(9)}, "1": 4, "float": 0}
    assert (point["method"], point["target"], point["ratio"]) == ("joint", 2, None)
    (row,) = csv.DictReader((tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines())
    assert row["filters_1"] == "4"
    assert row["filters_float"] == "0"
    assert "bit_widths" not in row


def test_cost_at_equal_quality(tmp_path):
    result = run(tmp_path, targets=(8, 4, 2, 1), methods=("nearest", "joint"))
    levels = {round(level.level, 2): level for level in result.equal_quality}
    assert list(levels) == [0.99, 0.98, 0.95]
    assert levels[0.99].costs == {"nearest": 8 * MACS, "joint": 4 * MACS}
    assert levels[0.99].best == "joint"
    assert math.isclose(levels[0.98].factor, 0.5)
    assert not levels[0.98].at_most
    # Joint is better than that at its cheapest.
    assert levels[0.95].costs["joint"] is None
    assert (levels[0.95].best, levels[0.95].at_most) == ("joint", True)
    assert math.isclose(levels[0.95].factor, MACS / levels[0.95].costs["nearest"])
    assert run(tmp_path, targets=(2,), methods=("joint",)).equal_quality == ()


def test_costs_refer_to_the_published_baseline_where_it_is_swept(tmp_path):
    result = run(tmp_path, targets=(8, 4, 2, 1), methods=("nearest", "aciq", "joint"))
    assert {level.baseline for level in result.equal_quality} == {"aciq"}
    level = next(x for x in result.equal_quality if round(x.level, 2) == 0.98)
    assert math.isclose(level.factor, level.costs["joint"] / level.costs["aciq"])
    assert level.to_document()["baseline"] == "aciq"


def test_failures_are_recorded(tmp_path):
    result = run(tmp_path, Fake(fail=(1,)), targets=(2, 1), methods=("joint",))
    assert [p.reason for p in result.points] == ["", "cannot be reached"]
    with pytest.raises(OperationError, match="cannot be reached"):
        run(tmp_path, Fake(fail=(1,)), targets=(1,), methods=("joint",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("joint", "magic")}, "'magic' is not known; there are: nearest"),
        ({"methods": ()}, "at least one method"),
        ({"targets": ()}, "at least one method and one target"),
        ({"targets": (2, 0)}, "target 0 must be above 0"),
        ({"targets": (float("nan"),)}, "above 0"),
        ({"targets": (2,), "bits": (4,)}, "either methods and targets, or a grid"),
        ({"methods": ("joint",), "ratios": (0.5,)}, "either methods and targets, or a grid"),
        ({"options": {"bits": 4}}, "decide bits themselves"),
    ],
)
def test_impossible_sweeps(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        run(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
