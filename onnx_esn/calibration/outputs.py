"""Run a model over a whole set, batch by batch or collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import InferenceError

from .calibration_set import CalibrationSet
from .not_finite import first_not_finite
from .prefetch import prefetch
from .session import Session

Progress = Callable[[int, int], None]
Outputs = dict[str, npt.NDArray[Any]]


def iterate_outputs(
    session: Session,
    dataset: CalibrationSet,
    batch_size: int,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    with_feeds: bool = False,
    first: int = 0,
) -> Iterator[Outputs]:
    """The outputs of each batch, and its feeds if wanted, without the padding of a fixed batch.

    The next batch is decoded while the model runs. ``progress(done, total)`` counts samples;
    ``first`` is the number that messages give to the first one.

    Raises:
        InferenceError: the run fails, or an output holds a NaN or an infinity (named, with the
            sample).
        ImageSetError, OptionError: see `CalibrationSet.batches`.
    """
    done, total = 0, len(dataset)
    batches = dataset.batches(batch_size)
    with closing(prefetch(batches)) as ready:
        for batch in ready:
            outputs = session.run(batch.feeds, names)
            if with_feeds:
                outputs = batch.feeds | outputs
            size = len(next(iter(batch.feeds.values())))
            if batch.count < size:
                outputs = {
                    name: _trim(name, value, batch.count, size) for name, value in outputs.items()
                }
            for name, value in outputs.items():
                _check_finite(name, value, first + done, session, batch.feeds)
            done += batch.count
            yield outputs
            if progress is not None:
                progress(done, total)


def collect_outputs(
    session: Session,
    dataset: CalibrationSet,
    batch_size: int,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """All outputs, concatenated over the samples: for model outputs, which are small.

    Raises:
        InferenceError: as `iterate_outputs`, or the shape of an output differs between batches.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for outputs in iterate_outputs(session, dataset, batch_size, names, progress):
        for name, value in outputs.items():
            parts.setdefault(name, []).append(np.atleast_1d(value))
    for name, values in parts.items():
        shapes = sorted({value.shape[1:] for value in values})
        if len(shapes) > 1:
            raise InferenceError(
                f"output '{name}' of {session.name} changes its shape between batches: {shapes}"
            )
    return {name: np.concatenate(values) for name, values in parts.items()}


def _trim(name: str, value: npt.NDArray[Any], count: int, size: int) -> npt.NDArray[Any]:
    # A reshape may merge another axis into the batch; the samples are still in order then.
    if value.ndim == 0 or len(value) % size:
        raise InferenceError(
            f"output '{name}' of shape {value.shape} does not follow the model's fixed batch of "
            f"{size}, so the padding of the last batch cannot be removed; use a number of samples "
            f"that is a multiple of {size}"
        )
    return value[: len(value) // size * count]


def _check_finite(
    name: str,
    value: npt.NDArray[Any],
    done: int,
    session: Session,
    feeds: Mapping[str, npt.NDArray[Any]],
) -> None:
    if value.dtype.kind != "f" or np.isfinite(value).all():
        return
    nan = bool(np.isnan(value).any())
    where = "" if value.ndim == 0 else f" from sample {done + _first_bad(value)}"
    first = None if session.source is None else first_not_finite(session.source, feeds, nan)
    raise InferenceError(
        f"tensor '{name}' of {session.name} holds {'NaN' if nan else 'an infinity'}{where}"
        + (f"; the first that does is made by {first}" if first else "")
    )


def _first_bad(value: npt.NDArray[Any]) -> int:
    return int(np.argmin(np.isfinite(value.reshape(len(value), -1)).all(axis=1)))
