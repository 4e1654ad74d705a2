"""Timing: the widths of a layer against each other, and the whole model's kernels."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_esn.calibration import Session
from onnx_esn.calibration.kernel_times import Kernel, KernelClock, fast_mean
from onnx_esn.graph.model_file import initializer_bytes

Feeds = Mapping[str, NDArray[Any]]

# Into and out of the layout of the convolutions: a model does that at its ends, not at each layer.
_REORDERS = ("ReorderInput", "ReorderOutput")
_WARMUP = 2
_AT_A_TIME = 5
_LARGE = 1 << 28  # bytes of weights


@dataclass(frozen=True)
class LayerTime:
    """A layer alone.

    Attributes:
        seconds: mean of its fastest quarter of runs.
        spread: how far the median run is above that, relative.
        kernel: what tells its kernel from those of other layers.
    """

    seconds: float
    spread: float
    kernel: str


@dataclass(frozen=True)
class WholeTime:
    """The whole model.

    Attributes:
        seconds: from call to return, mean of the fastest quarter of runs.
        spread: how far the median run is above that, relative.
        kernels: by kernel, seconds of each of those that look alike, mean over them.
        inside: seconds in all kernels together; with the notes taken, it may exceed `seconds`.
    """

    seconds: float
    spread: float
    kernels: Mapping[str, float]
    inside: float

    @property
    def share(self) -> float:
        """What a kernel's time counts: taking notes costs time, and all cannot exceed the whole."""
        return min(1.0, self.seconds / self.inside) if self.inside else 1.0


def quieter(a: LayerTime, b: LayerTime) -> LayerTime:
    """The faster of two timings of one layer: other programs only make one slower."""
    return a if a.seconds <= b.seconds else b


def quieter_whole(a: WholeTime, b: WholeTime) -> WholeTime:
    """The same for a whole model, kernel by kernel."""
    kernels = {kind: min(t, b.kernels.get(kind, t)) for kind, t in a.kernels.items()}
    first = a if a.seconds <= b.seconds else b
    return replace(first, kernels=kernels, inside=min(a.inside, b.inside))


class Timer(Protocol):
    """What takes times: onnxruntime, or a stand-in."""

    def layers(self, models: Sequence[onnx.ModelProto]) -> list[LayerTime]:
        """Time models of one layer each against each other."""
        ...

    def whole(self, model: onnx.ModelProto, feeds: Feeds) -> WholeTime:
        """Time a whole model."""
        ...


@dataclass(frozen=True)
class RuntimeTimer:
    """Times models with onnxruntime.

    Attributes:
        repeat: runs of each model.
        threads: threads of onnxruntime; None leaves them to it.
    """

    repeat: int
    threads: int | None

    def layers(self, models: Sequence[onnx.ModelProto]) -> list[LayerTime]:
        """Time models of one layer each, in turns so that noise hits them all alike.

        Raises:
            InferenceError: onnxruntime cannot run one.
        """
        with contextlib.ExitStack() as stack:
            clocks = [stack.enter_context(KernelClock(m, self.threads)) for m in models]
            turns = [(clock, random_feeds(m)) for clock, m in zip(clocks, models, strict=True)]
            with _undisturbed():
                for _ in range(_WARMUP + self.repeat):
                    for clock, feed in turns:
                        clock.run(feed)
                    turns.reverse()
            return [_alone(clock.runs()[_WARMUP:]) for clock in clocks]

    def whole(self, model: onnx.ModelProto, feeds: Feeds) -> WholeTime:
        """Time a whole model, a few runs with and a few without notes of its kernels in turns.

        Raises:
            InferenceError: onnxruntime cannot run it.
        """
        turns = -(-self.repeat // _AT_A_TIME)
        walls: list[float] = []
        session = None
        if initializer_bytes(model) > _LARGE:  # both at a time would hold its weights twice
            walls = self._seconds_alone(model, feeds, turns)
        else:
            session = Session(model, threads=self.threads)
        with KernelClock(model, self.threads) as clock, _undisturbed():
            for _ in range(turns):
                if session is not None:
                    walls += _seconds(session, feeds)
                for _ in range(_AT_A_TIME):
                    clock.run(feeds)
            runs = clock.runs()
        seconds = fast_mean(walls)
        inside = fast_mean([sum(k.seconds for k in run) for run in runs])
        return WholeTime(seconds, _above(walls, seconds), _by_kernel(runs), inside)

    def _seconds_alone(self, model: onnx.ModelProto, feeds: Feeds, turns: int) -> list[float]:
        session = Session(model, threads=self.threads)
        with _undisturbed():
            return [s for _ in range(turns) for s in _seconds(session, feeds)]


def _seconds(session: Session, feeds: Feeds) -> list[float]:
    """Of a few runs."""
    session.run(feeds)  # what the other one left in the caches goes
    walls = []
    for _ in range(_AT_A_TIME):
        start = time.perf_counter()
        session.run(feeds)
        walls.append(time.perf_counter() - start)
    return walls


def random_feeds(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]] | None = None) -> Feeds:
    """Numbers from 0 to 1 for each input, zeros where it holds integers.

    Args:
        model: the model.
        sizes: shapes by input; None: those that it declares.
    """
    stored = {t.name for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    feeds = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        kind = info.type.tensor_type
        shape = [d.dim_value for d in kind.shape.dim] if sizes is None else list(sizes[info.name])
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[info.name] = np.asarray(rng.random(shape, np.float32)).astype(dtype)
    return feeds


def _alone(runs: Sequence[Sequence[Kernel]]) -> LayerTime:
    times = [sum(k.seconds for k in run if k.op not in _REORDERS) for run in runs]
    seconds = fast_mean(times)
    largest = max(runs[0], key=lambda k: k.seconds * (k.op not in _REORDERS))
    return LayerTime(seconds, _above(times, seconds), _kind(largest))


def _by_kernel(runs: Sequence[Sequence[Kernel]]) -> dict[str, float]:
    """Mean over alike kernels of each one's fast mean."""
    each: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        for k in run:
            each[_kind(k), k.node].append(k.seconds)
    alike: dict[str, list[float]] = defaultdict(list)
    for (kind, _), times in each.items():
        alike[kind].append(fast_mean(times))
    return {kind: sum(times) / len(times) for kind, times in alike.items()}


def _kind(kernel: Kernel) -> str:
    return f"{kernel.op} {kernel.shapes}"


def _above(times: Sequence[float], base: float) -> float:
    return float(np.median(times)) / base - 1


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
