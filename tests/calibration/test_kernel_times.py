import json

import numpy as np
import pytest

from onnx_esn.calibration.kernel_times import KernelClock, fast_mean, read_trace
from onnx_esn.errors import InferenceError

from .tiny import unary_model


def event(name, dur, op=None):
    args = {} if op is None else {"op_name": op, "input_type_shape": [{"float": [1, 2]}]}
    return {"cat": "Node" if op else "Session", "name": name, "dur": dur, "args": args}


def test_a_trace_is_cut_into_runs(tmp_path):
    path = tmp_path / "trace.json"
    events = [event("session_initialization", 9)]
    for dur in (4, 6):
        events += [event("a_kernel_time", dur, "Conv"), event("b_kernel_time", 1, "Relu")]
        events += [event("SequentialExecutor::Execute", 9), event("model_run", 9)]
    path.write_text(json.dumps(events))
    runs = read_trace(path)
    assert [[(k.node, k.op) for k in run] for run in runs] == 2 * [[("a", "Conv"), ("b", "Relu")]]
    # Whole microseconds, rounded down: half of one is missing on average.
    np.testing.assert_allclose([run[0].seconds for run in runs], [4.5e-6, 6.5e-6])


def test_a_real_clock_leaves_nothing_behind():
    with KernelClock(unary_model("Relu")) as clock:
        for _ in range(3):
            clock.run({"x": np.ones((1, 2), np.float32)})
        folder = clock._folder
        assert folder.is_dir()
        runs = clock.runs()
    assert not folder.exists()
    assert len(runs) == 3
    assert all([k.op for k in run] == ["Relu"] for run in runs)
    assert len({k.shapes for run in runs for k in run}) == 1


def test_a_model_that_does_not_load_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InferenceError):
        KernelClock(unary_model("NoSuchOperator"))
    assert not list(tmp_path.iterdir())


def test_fast_mean():
    assert fast_mean([4, 1, 100, 3, 2, 7, 8, 9]) == 1.5
    assert fast_mean([5.0]) == 5.0
