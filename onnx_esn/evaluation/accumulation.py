"""Agreement and accuracy over batches, so that outputs need not be kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.agreement import Agreement, measured
from onnx_esn.numerics.output_error import error_ratio, noise_shares

from .comparison import Accuracy, OutputAgreement

Outputs = Mapping[str, npt.NDArray[Any]]
Sums = npt.NDArray[np.float64]


def is_classifier(output: npt.NDArray[Any]) -> bool:
    """Whether an output (N, C[, 1, …]) with C ≥ 2 holds a number for each class."""
    return (
        output.dtype.kind in "fiu"
        and output.ndim >= 2
        and output.shape[1] >= 2
        and all(side == 1 for side in output.shape[2:])
    )


class AgreementSum:
    """Agreement of one output, batch after batch.

    Equal to `agreement` over all samples at once, up to rounding: top-1, cosine and KL are means
    over samples, and signal and noise are sums, of each channel.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.reason = ""
        self._samples = 0
        self._top1: float | None = 0.0
        self._kl: float | None = 0.0
        self._cosine = 0.0
        self._signal: Sums | None = None
        self._noise: Sums = np.zeros(1)

    def add(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> None:
        """Take one batch; after outputs that do not compare, `result` only says so."""
        if self.reason:
            return
        if reference.dtype.kind not in "fiub" or candidate.dtype.kind not in "fiub":
            self.reason = f"its type is {reference.dtype}, not a number"
            return
        try:
            part, signal, noise = measured(reference, candidate)
        except VerificationError as error:
            self.reason = str(error)
            return
        count = part.samples
        self._add_squares(signal, noise)
        self._cosine += part.cosine * count
        self._top1 = _add(self._top1, part.top1, count)
        self._kl = _add(self._kl, part.kl, count)
        self._samples += count

    def _add_squares(self, signal: Sums, noise: Sums) -> None:
        if self._signal is None:
            self._signal, self._noise = signal, noise
            return
        if self._signal.size != signal.size:  # how many channels there are depends on the data
            self._signal, self._noise, signal, noise = (
                np.atleast_1d(x.sum()) for x in (self._signal, self._noise, signal, noise)
            )
        self._signal, self._noise = self._signal + signal, self._noise + noise

    def result(self) -> OutputAgreement:
        """The agreement over all batches so far."""
        if self.reason or self._signal is None:
            return OutputAgreement(self.output, None, self.reason or "no sample was compared")
        n = self._samples
        error = error_ratio(noise_shares(self._signal, self._noise))
        if error == 0:
            snr_db = math.inf
        else:
            snr_db = -math.inf if math.isinf(error) else -10 * math.log10(error)
        top1 = None if self._top1 is None else self._top1 / n
        kl = None if self._kl is None else self._kl / n
        return OutputAgreement(self.output, Agreement(top1, self._cosine / n, snr_db, kl, error, n))


class Hits:
    """Which samples a classifier gets right."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.float64]] = []

    def add(self, output: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> None:
        """Take one batch: class scores (N, C[, 1, …]) and labels (N,)."""
        scores = output.reshape(output.shape[:2])
        self._parts.append((scores.argmax(axis=1) == labels).astype(np.float64))

    def array(self) -> npt.NDArray[np.float64]:
        """1 for right, 0 for wrong, of all samples."""
        return np.concatenate(self._parts)


def measure_accuracy(hits: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> Accuracy:
    """Accuracy with standard errors from right/wrong (N,) here and in the reference."""
    difference = hits - reference
    return Accuracy(
        float(hits.mean()),
        _standard_error(hits),
        float(difference.mean()),
        _standard_error(difference),
    )


def _standard_error(values: npt.NDArray[np.float64]) -> float | None:
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _add(total: float | None, part: float | None, count: int) -> float | None:
    return None if total is None or part is None else total + part * count
