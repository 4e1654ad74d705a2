"""What layers put out on images, in both models: a signal-to-noise ratio for each.

The output of a layer is taken behind the normalization that follows it, so that it does not matter
whether that was folded: behind a BatchNormalization, or additions and multiplications of
constants, as long as nothing else reads what is between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.calibration import CalibrationSet, Session
from onnx_esn.calibration.prefetch import prefetch
from onnx_esn.evaluation.turns import Runnable, any_large, side_by_side
from onnx_esn.graph.layers import Layer

from .layers import LayerPair, View
from .tensors import ratio_db

Array = npt.NDArray[Any]
MEMORY_LIMIT = 2**29


@dataclass
class _Sum:
    signal: float = 0.0
    noise: float = 0.0
    reason: str = ""


def layer_signals(
    a: View,
    b: View,
    pairs: Sequence[LayerPair],
    sets: tuple[CalibrationSet, CalibrationSet],
    *,
    batch_size: int,
    threads: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float | None, str]]:
    """(SNR in dB or None, reason why there is none) by name of the layer in the first model.

    Args:
        a, b: the models.
        pairs: the layers to compare.
        sets: the same samples for each model.
        batch_size: most samples at once; fewer where the outputs of the layers take much memory.
        threads: threads for one operator.
        memory_limit: bytes that the layers' outputs may take.
        progress: called with the samples done and their total.

    Raises:
        InferenceError: a model does not run.
    """
    sums = {pair.before.name: _Sum() for pair in pairs}
    open_pairs = []
    for pair in pairs:
        if pair.turned[0]:
            sums[pair.before.name].reason = "its channels are in another basis (rotate)"
        elif pair.kept is None:
            sums[pair.before.name].reason = "nothing says which filters are left"
        else:
            open_pairs.append(pair)
    if open_pairs:
        _run(a, b, open_pairs, sets, sums, batch_size, threads, memory_limit, progress)
    return {
        name: (None, total.reason) if total.reason else (ratio_db(total.signal, total.noise), "")
        for name, total in sums.items()
    }


def _run(
    a: View,
    b: View,
    pairs: Sequence[LayerPair],
    sets: tuple[CalibrationSet, CalibrationSet],
    sums: Mapping[str, _Sum],
    size: int,
    threads: int | None,
    memory_limit: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    here, there = ([p.ends[side].tensor for p in pairs] for side in (0, 1))
    waiting = any_large([a.wiring.model, b.wiring.model])
    models = [
        Runnable(
            view.wiring.model, outputs=list(dict.fromkeys(e)), threads=threads, waiting=waiting
        )
        for view, e in ((a, here), (b, there))
    ]
    if all(data.fixed_batch is None for data in sets):
        sample = sum(_sample_bytes(m, data) for m, data in zip(models, sets, strict=True))
        size = min(size, max(1, memory_limit // max(sample, 1)))
    counts: list[int] = []

    def run(side: int, session: Session) -> Iterator[Mapping[str, Array | None]]:
        with closing(prefetch(sets[side].batches(size))) as ready:
            for batch in ready:
                rows = len(next(iter(batch.feeds.values())))
                if not side:
                    counts.append(batch.count)
                found = session.run(batch.feeds)
                yield {name: _trimmed(x, batch.count, rows) for name, x in found.items()}

    done, total = 0, len(sets[0])
    for number, (x, y) in enumerate(side_by_side(models, run)):
        for pair, mine, theirs in zip(pairs, here, there, strict=True):
            _add(sums[pair.before.name], pair, x[mine], y[theirs])
        done += counts[number]
        if progress is not None:
            progress(done, total)


def _sample_bytes(model: Runnable, data: CalibrationSet) -> int:
    """Bytes of what a model puts out for one sample."""
    feeds = next(data.take(1).batches(1)).feeds
    with model.session() as session:
        return sum(int(getattr(value, "nbytes", 0)) for value in session.run(feeds).values())


def _add(total: _Sum, pair: LayerPair, before: Array | None, after: Array | None) -> None:
    if total.reason or pair.kept is None:
        return
    if before is None or after is None or before.ndim != after.ndim:
        total.reason = "its outputs have different layouts"
        return
    axis = _axis(pair.before) % before.ndim
    if axis >= before.ndim or before.shape[axis] != pair.before.filters:
        total.reason = "its output does not have its filters where they are expected"
        return
    if pair.kept.size < pair.before.filters or (np.diff(pair.kept) != 1).any():
        before = np.take(before, pair.kept, axis=axis)
    if before.shape != after.shape:
        total.reason = f"its outputs have the shapes {before.shape} and {after.shape}"
        return
    ref, cand = before.astype(np.float64), after.astype(np.float64)
    if not np.isfinite(ref).all() or not np.isfinite(cand).all():
        total.reason = "its output holds NaN or infinity"
        return
    total.signal += float(np.square(ref).sum())
    cand -= ref
    total.noise += float(np.square(cand, out=cand).sum())


def _trimmed(value: Array, count: int, rows: int) -> Array | None:
    """Without the padding of a fixed batch; None where the samples cannot be told apart."""
    if count == rows:
        return value
    if value.ndim == 0 or len(value) % rows:
        return None
    return value[: len(value) // rows * count]


def _axis(layer: Layer) -> int:
    """Channel axis of a layer's output, from the end where its rank may vary."""
    if layer.op in ("Gemm", "MatMul"):
        return -1 if layer.slot == 1 else -2
    return layer.channel_axis
