"""Moments of many tensors of a model that stays as it is, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import onnx

from onnx_esn.errors import OperationError
from onnx_esn.numerics.moments import Moments

from .calibration_set import CalibrationSet
from .point_moments import Point, point_moments
from .prefetch import prefetch
from .session import Session
from .staged import MEMORY_LIMIT


def stream_moments(
    model: onnx.ModelProto,
    points: Sequence[Point],
    dataset: CalibrationSet,
    *,
    batch_size: int = 64,
    memory_limit: int = MEMORY_LIMIT,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Moments]:
    """Moments of each point, by `Point.node`.

    Args:
        model: the model.
        points: what to measure; several may share a tensor.
        dataset: samples that fit the model.
        batch_size: largest number of samples in one run; the result does not depend on it.
        memory_limit: the batch is made smaller where all tensors together would take more than
            a quarter of these bytes.
        threads: threads for one operator.
        progress: called with (samples done, samples).

    Raises:
        VerificationError: a value is NaN or infinite; names the layer.
        OperationError: a tensor has no such channel axis, or the model does not run.
    """
    feeds = {spec.name for spec in dataset.inputs}
    keys = {(p.tensor, p.axis): p for p in points}
    names = list(dict.fromkeys(tensor for tensor, _ in keys if tensor not in feeds))
    session = Session(model, outputs=names, threads=threads) if names else None
    if session is not None and dataset.fixed_batch is None:
        first = next(dataset.take(1).batches(1)).feeds
        sample = sum(getattr(value, "nbytes", 0) for value in session.run(first).values())
        batch_size = min(batch_size, max(1, memory_limit // 4 // max(sample, 1)))
    moments: dict[tuple[str, int], Moments] = {}
    done = 0
    with closing(prefetch(dataset.batches(batch_size))) as ready:
        for batch in ready:
            size = len(next(iter(batch.feeds.values())))
            tensors = dict(batch.feeds)
            if session is not None:
                tensors |= session.run(batch.feeds)
            for key, point in keys.items():
                new = point_moments(point, tensors[point.tensor], batch.count, size)
                old = moments.get(key)
                if old is not None and old.mean.shape != new.mean.shape:
                    raise OperationError(
                        f"{point.name}: the channels of '{point.tensor}' differ between batches"
                    )
                moments[key] = new if old is None else old.merge(new)
            done += batch.count
            if progress is not None:
                progress(done, len(dataset))
    return {point.node: moments[point.tensor, point.axis] for point in points}
