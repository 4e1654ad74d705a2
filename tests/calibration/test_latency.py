import gc
import time

import numpy as np
import pytest

from onnx_esn.calibration import Session, median_latency

from .tiny import unary_model


class Slow:
    """Stands in for a session; records its turn and takes its time."""

    def __init__(self, name, seconds, turns):
        self.name, self.seconds, self.turns = name, seconds, turns

    def run(self, feeds, names=None):
        self.turns.append(self.name)
        time.sleep(self.seconds)
        return {}


def test_interleaved_and_in_milliseconds():
    turns = []
    models = [Slow("a", 0.002, turns), Slow("b", 0.01, turns)]
    first, second = median_latency(models, [{}, {}], rounds=4, warmup=1, min_seconds=0)
    assert "".join(turns) == "ab" + "abbaabba"
    assert first.ratio == 1
    assert first.median_ms > 1.9
    assert first.p10 <= first.median_ms <= first.p90
    assert second.median_ms > 9.9
    assert second.ratio > 1
    assert gc.isenabled()


def test_goes_on_for_the_time_asked():
    turns = []
    median_latency([Slow("a", 0.001, turns)], [{}], rounds=1, warmup=0, min_seconds=0.02)
    assert len(turns) > 3


def test_a_real_session():
    session = Session(unary_model("Relu"), threads=1)
    feeds = {"x": np.ones((1, 2), np.float32)}
    [only] = median_latency([session], [feeds], rounds=3, min_seconds=0)
    assert only.median_ms > 0


def test_refuses_nonsense():
    for models, feeds, rounds in (([], [], 1), ([object()], [], 1), ([object()], [{}], 0)):
        with pytest.raises(ValueError, match="at least one model"):
            median_latency(models, feeds, rounds=rounds)
