import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.calibration import Session, collect_outputs, iterate_outputs, open_set
from onnx_esn.calibration.prefetch import prefetch
from onnx_esn.errors import InferenceError, OptionError

from .tiny import conv_model, unary_model

X = np.random.default_rng(2).normal(size=(11, 3, 8, 8)).astype(np.float32)
SESSIONS = {batch: Session(conv_model(batch=batch), threads=1) for batch in ("N", 1, 4)}


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 13), batch=st.sampled_from(["N", 1, 4]))
def test_any_batch_size_gives_the_same_outputs(size, batch):
    whole = SESSIONS["N"].run({"x": X})["y"]
    session = SESSIONS[batch]
    dataset = open_set(X, session.inputs)
    np.testing.assert_allclose(collect_outputs(session, dataset, size)["y"], whole, rtol=1e-5)


def test_names_progress_and_trimming():
    session = Session(conv_model(batch=4), outputs=["r", "y"])
    seen = []
    dataset = open_set(X, session.inputs)
    parts = list(iterate_outputs(session, dataset, 4, ["r"], lambda *at: seen.append(at)))
    assert [part["r"].shape for part in parts] == [(4, 2, 8, 8), (4, 2, 8, 8), (3, 2, 8, 8)]
    assert [list(part) for part in parts] == [["r"]] * 3
    assert seen == [(4, 11), (8, 11), (11, 11)]


def session_and_set(op, x, batch="N", **attributes):
    session = Session(unary_model(op, batch=batch, shape=x.shape[1:], **attributes))
    return session, open_set(x, session.inputs)


@pytest.mark.parametrize(("value", "what"), [(-1, "NaN"), (0, "an infinity")])
def test_outputs_that_are_not_numbers(value, what):
    x = np.ones((7, 2), np.float32)
    x[5, 1] = value
    session, dataset = session_and_set("Log", x)
    with pytest.raises(
        InferenceError, match=f"tensor 'y' of the model 'tiny' holds {what} from sa"
    ):
        collect_outputs(session, dataset, 3)
    with pytest.raises(InferenceError, match="from sample 5"):
        collect_outputs(session, dataset, 3)


def test_padding_is_removed_where_the_batch_swallowed_an_axis():
    x = np.arange(10, dtype=np.float32).reshape(5, 2, 1)
    session, dataset = session_and_set("Flatten", x, batch=3, axis=2)
    assert collect_outputs(session, dataset, 3)["y"].ravel().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Transpose", {"perm": [1, 0]}), ("ReduceMean", {"axes": [0, 1], "keepdims": 0})],
)
def test_padding_that_cannot_be_removed(op, attributes):
    x = np.ones((5, 2), np.float32)
    session, dataset = session_and_set(op, x, batch=3, **attributes)
    with pytest.raises(InferenceError, match="does not follow the model's fixed batch of 3"):
        collect_outputs(session, dataset, 3)
    assert collect_outputs(session, dataset.take(3), 3)["y"].size > 0


def test_outputs_without_a_batch_axis():
    x = np.float32([[1, 3], [5, 7], [9, 11]])
    session, dataset = session_and_set("ReduceMean", x, axes=[0, 1], keepdims=0)
    assert collect_outputs(session, dataset, 2)["y"].tolist() == [4, 10]
    session, dataset = session_and_set("Transpose", x, perm=[1, 0])
    with pytest.raises(InferenceError, match="changes its shape between batches"):
        collect_outputs(session, dataset, 2)


def test_batch_size_is_checked():
    session, dataset = session_and_set("Relu", np.ones((2, 2), np.float32))
    with pytest.raises(OptionError, match="batch size 0"):
        collect_outputs(session, dataset, 0)


class TestPrefetch:
    def test_nothing_is_lost(self):
        assert list(prefetch(range(5))) == [0, 1, 2, 3, 4]
        assert list(prefetch([])) == []
        assert list(prefetch([None, 0, []])) == [None, 0, []]

    def test_an_exception_comes_in_its_turn(self):
        def items():
            yield 1
            yield 2
            raise OSError("disk gone")

        seen = []
        with pytest.raises(OSError, match="disk gone"):
            seen.extend(item for item in self.record(prefetch(items()), seen))
        assert seen == [1, 2]

    @staticmethod
    def record(items, seen):
        for item in items:
            seen.append(item)
        yield from ()

    def test_one_step_ahead_and_no_further(self):
        made = []

        def items():
            for index in range(10):
                made.append(index)
                yield index

        ready = prefetch(items())
        next(ready)
        deadline = time.monotonic() + 10
        while len(made) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == [0, 1]
        ready.close()

    def test_closing_stops_the_thread(self):
        def named():
            return [t for t in threading.enumerate() if t.name.startswith("onnx-esn-prefetch")]

        ready = prefetch(iter(range(100)))
        assert next(ready) == 0
        assert named()
        ready.close()
        assert not named()

    def test_closing_the_outputs_stops_the_thread(self):
        session, dataset = session_and_set("Relu", np.ones((50, 2), np.float32))
        running = iterate_outputs(session, dataset, 1)
        next(running)
        running.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("onnx-esn-prefetch")]

    def test_errors_of_the_set_reach_the_caller(self, monkeypatch):
        session, dataset = session_and_set("Relu", np.ones((4, 2), np.float32))

        def fail(indices):
            raise OSError("disk gone")

        monkeypatch.setattr(dataset._samples, "read", fail)
        with pytest.raises(OSError, match="disk gone"):
            collect_outputs(session, dataset, 1)
