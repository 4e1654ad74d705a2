import csv
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.errors import (
    BudgetError,
    ImageSetError,
    OperationError,
    OptionError,
    OutputError,
)
from onnx_esn.evaluation import Accuracy, Comparison, Evaluation, OutputAgreement
from onnx_esn.numerics.agreement import Agreement
from onnx_esn.search.fingerprint import fingerprint_set
from onnx_esn.search.sweep import sweep


def tiny_model(scale=1.0):
    weight = np.full((4, 3, 1, 1), scale, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(6, 3, 4, 4)).astype(np.float32)


@dataclass
class Result:
    model: onnx.ModelProto
    evaluation: Comparison | None


class FakeCompress:
    """Counts its calls; fails or is interrupted where it is told to."""

    def __init__(self, fail=(), interrupt=None, top1=True, accuracy=False):
        self.calls = []
        self.fail = set(fail)
        self.interrupt = interrupt
        self.top1, self.accuracy = top1, accuracy

    def __call__(self, model, data, *, ratio, bits, batch_size, latency, **options):
        if self.interrupt == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append((ratio, bits))
        if (ratio, bits) in self.fail:
            raise BudgetError(f"{bits} bits cannot be reached")
        loss = (ratio or 0) * 0.3 + 2.0**-bits
        figures = (self._model("in", 1e6, 32, 0.0), self._model("out", 1e6, bits, loss))
        return Result(tiny_model(), Comparison(figures, 0, data.name, len(data)))

    def _model(self, name, macs, bits, loss):
        snr_db = -10 * math.log10(loss) if loss else math.inf
        agreed = Agreement(1 - loss if self.top1 else None, 1 - loss / 10, snr_db, loss, loss, 6)
        output = OutputAgreement("y", agreed)
        accuracy = Accuracy(0.8 - loss, 0.01, -loss, 0.005) if self.accuracy else None
        cost = macs * bits
        return Evaluation(
            name, int(macs), 12, cost, float(bits), 100, None, (output,), output, accuracy
        )


GRID = {"ratios": (0, 0.5), "bits": (2, 4)}


def run(out, compress=None, model=None, data=None, **options):
    model = tiny_model() if model is None else model
    data = images() if data is None else data
    return sweep(model, data, out, compress=compress or FakeCompress(), **{**GRID, **options})


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ("sweep.csv", "sweep.json")}


def test_grid_and_files(tmp_path):
    compress = FakeCompress()
    result = run(tmp_path, compress)
    assert compress.calls == [(None, 2), (None, 4), (0.5, 2), (0.5, 4)]
    assert [(point.ratio, point.bits) for point in result.points] == [
        (0, 2),
        (0, 4),
        (0.5, 2),
        (0.5, 4),
    ]
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert document["schema"] == "onnx-esn/sweep/2"
    assert document["model"] == "tiny"
    assert document["samples"] == 6
    assert document["metric"] == "top1"
    assert document["input"]["esn_prime"] == 32e6
    assert document["input"]["snr_db"] is None
    assert [point["pareto"] for point in document["points"]] == [True, True, False, False]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["top1"]) for row in rows] == [p["top1"] for p in document["points"]]
    assert rows[0]["latency_ms"] == ""
    assert rows[0]["status"] == "done"


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(part, FakeCompress(interrupt=3))
    assert len(list((part / "points").iterdir())) == 3
    assert not (part / "sweep.json").exists()
    rest = FakeCompress()
    result = run(part, rest)
    assert rest.calls == [(0.5, 4)]
    assert result.computed == 1
    assert contents(part) == contents(whole)


def test_a_finished_sweep_is_read_again_byte_for_byte(tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    again = FakeCompress()
    result = run(tmp_path, again)
    assert again.calls == []
    assert result.computed == 0
    assert contents(tmp_path) == before


def test_a_larger_grid_keeps_the_points_there_are(tmp_path):
    run(tmp_path)
    compress = FakeCompress()
    result = run(tmp_path, compress, bits=(4, 3, 2, 3))
    assert compress.calls == [(None, 3), (0.5, 3)]
    assert len(result.points) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"model": tiny_model(2.0)},
        {"data": images(1)},
        {"data": images()[::-1].copy()},
        {"data": {"x": images(), "y": np.zeros(6, dtype=np.int64)}},
        {"batch_size": 7},
        {"options": {"method": "reestimate"}},
    ],
    ids=["model", "images", "order", "labels", "batch size", "options"],
)
def test_points_of_something_else_are_not_taken(tmp_path, change):
    run(tmp_path)

    class Compress(FakeCompress):
        pass

    compress = Compress()
    run(tmp_path, compress, **change)
    assert len(compress.calls) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "onnx-esn/sweep-point/1"}'])
def test_a_damaged_point_is_computed_again(tmp_path, text):
    run(tmp_path)
    before = contents(tmp_path)
    damaged = sorted((tmp_path / "points").iterdir())[0]
    damaged.write_text(text, encoding="utf-8")
    compress = FakeCompress()
    run(tmp_path, compress)
    assert len(compress.calls) == 1
    assert contents(tmp_path) == before


def test_a_failed_point_does_not_stop_the_others(tmp_path):
    result = run(tmp_path, FakeCompress(fail=[(0.5, 2)]))
    failed = result.points[2]
    assert failed.figures is None
    assert failed.reason == "2 bits cannot be reached"
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert [point["status"] for point in document["points"]] == ["done", "done", "failed", "done"]
    assert document["points"][2]["esn_prime"] is None
    again = FakeCompress()
    run(tmp_path, again)
    assert again.calls == [(0.5, 2)], "a failed point is tried again"


def test_all_points_failed(tmp_path):
    fail = [(ratio, bits) for ratio in (None, 0.5) for bits in (2, 4)]
    with pytest.raises(OperationError, match=r"none of the 4 points.*2 bits cannot be reached"):
        run(tmp_path, FakeCompress(fail=fail))
    assert "cannot be reached" in (tmp_path / "sweep.csv").read_text(encoding="utf-8")


def test_metric(tmp_path):
    labels = np.zeros(6, dtype=np.int64)
    assert run(tmp_path / "a", FakeCompress(accuracy=True), labels=labels).metric == "accuracy"
    assert run(tmp_path / "b", FakeCompress()).metric == "top1"
    assert run(tmp_path / "c", FakeCompress(top1=False)).metric == "snr_db"


def test_an_exact_point_is_on_the_front(tmp_path):
    result = run(tmp_path, FakeCompress(top1=False))
    exact = replace(result.points[1].figures, snr_db=None, normalized_error=0.0)
    points = (result.points[0], replace(result.points[1], figures=exact))
    assert replace(result, points=points).front == (True, True)


def test_too_few_images_to_hold_some_out(tmp_path):
    def compress(model, data, **options):
        return Result(model, None)

    with pytest.raises(OperationError, match="6 samples are too few"):
        run(tmp_path, compress)


def test_saved_models(tmp_path):
    run(tmp_path)
    compress = FakeCompress()
    result = run(tmp_path, compress, save_models=True)
    assert len(compress.calls) == 4, "points without their model are computed again"
    for point in result.points:
        onnx.checker.check_model(tmp_path / point.model)
    compress = FakeCompress()
    (tmp_path / result.points[0].model).unlink()
    run(tmp_path, compress, save_models=True)
    assert len(compress.calls) == 1
    compress = FakeCompress()
    assert run(tmp_path, compress).points[0].model is None
    assert compress.calls == []


def test_progress(tmp_path):
    seen = []
    run(tmp_path, progress=lambda *at: seen.append(at))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": ()}, "at least one"),
        ({"bits": ()}, "at least one"),
        ({"ratios": (1.0,)}, "ratio 1.0"),
        ({"ratios": (-0.1,)}, "ratio -0.1"),
        ({"bits": (0,)}, "bits 0"),
        ({"bits": (9,)}, "bits 9"),
        ({"bits": (2.5,)}, "bits 2.5"),
    ],
)
def test_impossible_grids(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        run(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_inputs(tmp_path):
    with pytest.raises(ImageSetError):
        run(tmp_path, data=np.zeros((2, 5, 4, 4), dtype=np.float32))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        run(tmp_path / "file")


def test_fingerprint_does_not_depend_on_how_the_samples_are_kept(tmp_path):
    from onnx_esn.calibration import input_specs, open_set

    np.save(tmp_path / "set.npy", images())
    specs = input_specs(tiny_model())
    stored = open_set(tmp_path / "set.npy", specs)
    assert fingerprint_set(stored) == fingerprint_set(open_set(images(), specs))
    assert fingerprint_set(stored) != fingerprint_set(stored.subset([0, 1]))
