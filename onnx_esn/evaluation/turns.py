"""Models to run side by side; large ones are loaded one after the other.

Two sessions hold the weights of both models. Where these are large, each model runs over all
samples by itself, and what the earlier ones made waits in memory, or beyond a limit in temporary
files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import Latency, Session, median_latency
from onnx_esn.calibration.tensor_store import TensorStore
from onnx_esn.errors import InferenceError, OnnxEsnError
from onnx_esn.graph.judged_tensors import judged_beside, judged_tensors
from onnx_esn.graph.model_file import initializer_bytes, load_model
from onnx_esn.passes.export import runnable

Outputs = Mapping[str, Any]

LARGE = 1 << 28  # bytes of weights
_HELD = 1 << 28  # bytes of outputs that wait in memory


class Runnable:
    """A model that onnxruntime runs: loaded from the start, or, `waiting`, while it is used.

    Args:
        model: a model, or the path of one; of QONNX, what it computes in floats is run.
        outputs: see `Session`.
        threads: see `Session`.
        waiting: whether it is loaded while it is used only.

    Raises:
        ModelError, InferenceError: it cannot be loaded.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        *,
        outputs: Sequence[str] | None = None,
        threads: int | None = None,
        waiting: bool = False,
    ) -> None:
        # Loaded lean, weights stay in their file until they are multiplied with.
        lean = partial(Session, outputs=outputs, lean=True)
        full = partial(Session, outputs=outputs, threads=threads)
        first = lean if waiting else full
        try:
            session = first(model)
        except InferenceError:
            floats = _in_floats(model)
            if floats is None:
                raise
            model, session = floats, first(floats)
        self._open = partial(full, model)
        self._session = None if waiting else session
        self.waiting, self.threads = waiting, threads
        self.inputs, self.outputs = session.inputs, session.outputs

    @contextmanager
    def session(self) -> Iterator[Session]:
        """The session, for as long as it is needed."""
        yield self._open() if self._session is None else self._session


def judging(
    models: Sequence[onnx.ModelProto | Path], running: Sequence[Runnable], first: int
) -> list[Runnable]:
    """What gives the outputs that are compared: `running` itself, where they can be.

    How many boxes come out of NonMaxSuppression depends on the data: in their place are the tensors
    that they are selected from (`judged_tensors`).

    Args:
        models: the models that are `running`.
        running: what runs them as they are.
        first: index of the reference, whose tensors are looked for in the others.
    """
    loaded = load_model(models[first], outside=True)
    wanted = judged_tensors(loaded, labels=False)
    if wanted == [x.name for x in loaded.graph.output]:
        return list(running)
    found = []
    for model, run in zip(models, running, strict=True):
        names = judged_beside(load_model(model, outside=True), wanted, labels=False)
        found.append(Runnable(model, outputs=names, threads=run.threads, waiting=run.waiting))
    return found


def _in_floats(model: onnx.ModelProto | Path) -> onnx.ModelProto | None:
    """What onnxruntime can run of a QONNX model; None of others."""
    try:
        loaded = model if isinstance(model, onnx.ModelProto) else load_model(model, outside=True)
        plain = runnable(loaded)
    except OnnxEsnError:
        return None  # what onnxruntime said is nearer to the cause
    return None if plain is loaded else plain


def any_large(models: Sequence[onnx.ModelProto | Path]) -> bool:
    """Whether a model's weights are so large that only one should be loaded at a time."""
    return len(models) > 1 and any(_weights(model) > LARGE for model in models)


def _weights(model: onnx.ModelProto | Path) -> int:
    if isinstance(model, onnx.ModelProto):
        return initializer_bytes(model)
    files = [model, *model.parent.glob(f"{model.name}.*")] if model.is_file() else []
    return sum(file.stat().st_size for file in files)


def side_by_side(
    models: Sequence[Runnable], run: Callable[[int, Session], Iterator[Outputs]]
) -> Iterator[list[Outputs]]:
    """What all models make of each batch.

    Args:
        models: the models.
        run: (index, session) → what a model makes of one batch after the other.
    """
    with ExitStack() as stack:
        if not any(model.waiting for model in models):
            sessions = [stack.enter_context(model.session()) for model in models]
            yield from (list(step) for step in zip(*map(run, *_numbered(sessions)), strict=True))
            return
        store = stack.enter_context(TensorStore(_HELD))
        kept: list[list[Outputs]] = []
        for index, model in enumerate(models[:-1]):
            with model.session() as session:
                done = enumerate(run(index, session))
                kept.append([_put(store, index, batch, outputs) for batch, outputs in done])
            del session
        last = len(models) - 1
        with models[last].session() as session:
            steps = zip(*kept, run(last, session), strict=True)
            for batch, step in enumerate(steps):
                yield [*(_taken(store, i, batch, x) for i, x in enumerate(step[:-1])), step[-1]]


def latencies(
    models: Sequence[Runnable], feeds: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> list[Latency]:
    """`median_latency` of the models; of large ones each by itself, and ratios of the medians."""
    if not any(model.waiting for model in models):
        with ExitStack() as stack:
            sessions = [stack.enter_context(model.session()) for model in models]
            return median_latency(sessions, feeds)
    found: list[Latency] = []
    for model, feed in zip(models, feeds, strict=True):
        with model.session() as session:
            found += median_latency([session], [feed])
        del session
    return [replace(x, ratio=x.median_ms / found[0].median_ms) for x in found]


def _numbered(sessions: Sequence[Session]) -> tuple[range, Sequence[Session]]:
    return range(len(sessions)), sessions


def _put(store: TensorStore, index: int, batch: int, outputs: Outputs) -> Outputs:
    """The names of what the store took; what it does not take (sequences) with the values."""
    return {
        name: _STORED if store.put(batch, {f"{index} {name}": value}) else value
        for name, value in outputs.items()
    }


def _taken(store: TensorStore, index: int, batch: int, kept: Outputs) -> Outputs:
    found = {
        name: store.get(batch, f"{index} {name}") if value is _STORED else value
        for name, value in kept.items()
    }
    store.drop(batch, [f"{index} {name}" for name, value in kept.items() if value is _STORED])
    return found


_STORED = object()
