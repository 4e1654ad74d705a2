"""Distortions of filters at 0 … 8 bits, worked out only as far as a budget can ask for them.

More bits cannot leave less than nothing. So with 0 in place of what is not known yet, an allocation
for a Lagrange multiplier that takes none of these numbers is the one of the true ones: only filters
that did take one have to be looked at further, a bit at a time. What is left of the budget below
the first edge that does not fit is spent by guesses, and where one was taken, it is looked at too.
There, and only there, the bits may differ from those that all losses would give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import MAX_BITS, Bools, Floats
from onnx_esn.numerics.quantizers import Quantizer
from onnx_esn.passes.quantizing.filter_importance import energy_weights
from onnx_esn.passes.quantizing.quantizable import Job

Rows = npt.NDArray[np.intp]


class BitLosses:
    """Steps and distortions (M, 9) of the filters of one job.

    Args:
        job: the weight.
        quantizer: whose grid.
        live: (M,): filters that are not to be pruned for being dead.
        most: bits up to which they are worked out at first, at least 1.

    Attributes:
        known: (M,): bits up to which each filter's are.
    """

    def __init__(self, job: Job, quantizer: Quantizer, live: Bools, most: int) -> None:
        weight, M = job.weight, job.weight.shape[0]
        self.job, self.quantizer = job, quantizer
        self.steps, self._errors = np.zeros((M, MAX_BITS + 1)), np.zeros((M, MAX_BITS + 1))
        for block in weight.blocks():
            self._errors[block.rows, 0] = np.einsum("mk,mk->m", block.W, block.W)
        self._weight = energy_weights(self._errors[:, 0], live)[:, None]
        self.known = np.zeros(M, np.int64)
        self.work_out(np.arange(M), most)

    def work_out(self, filters: Rows, most: int) -> None:
        """Work the bits up to `most` out for some filters, and all for those whose type ends it."""
        end = min(most, self.job.most_bits)
        for have in np.unique(self.known[filters]).tolist():
            rows = filters[self.known[filters] == have]
            for part in np.array_split(rows, max(1, rows.size * self.job.weight.shape[1] >> 20)):
                W = self.job.weight.values[part].astype(np.float64)
                known = self.steps[part, : have + 1], self._errors[part, : have + 1]
                steps, errors = self.quantizer.further_bits(W, *known, end)
                self.steps[part, : steps.shape[1]] = steps
                self._errors[part, : errors.shape[1]] = errors
        self.known[filters] = np.maximum(self.known[filters], most)
        if end == self.job.most_bits:
            # More bits than the stored type can hold apart are worth no more.
            self.steps[filters, end:] = self.steps[filters, end, None]
            self._errors[filters, end:] = self._errors[filters, end, None]
            self.known[filters] = MAX_BITS
        self._take_grid()

    def _take_grid(self) -> None:
        """From the bits that its codes have on, a filter on a grid is exact."""
        weight = self.job.weight
        if weight.step is None or weight.quantizer != self.quantizer.name:
            return
        on = (np.arange(MAX_BITS + 1) >= weight.filter_bits[:, None]) & (weight.step > 0)[:, None]
        self.steps = np.where(on, weight.step[:, None], self.steps)
        self._errors = np.where(on, 0.0, self._errors)
        ended = on.any(axis=1) & (self.known >= weight.filter_bits - 1)
        self.known = np.where(ended, MAX_BITS, self.known)

    def distortion(self, guess: float = 0.0) -> Floats:
        """(M, 9): each filter's part of its layer's.

        What is not known is taken for `guess` times that of a bit less: 0 is below what it can be,
        a quarter is what a bit does to most filters.
        """
        beyond = np.arange(MAX_BITS + 1) - self.known[:, None]
        last = np.take_along_axis(self._errors, self.known[:, None], axis=1)
        unknown = last * guess ** np.maximum(beyond, 0)
        return np.asarray(self._weight * np.where(beyond > 0, unknown, self._errors))


def known_enough(losses: Sequence[BitLosses], bits: Integers) -> bool:
    """Whether the bits (F,) of all jobs' filters, in order, are known; else they are after this."""
    first, enough = 0, True
    for x in losses:
        b = bits[first : first + x.known.size]
        first += x.known.size
        for rise in np.unique(x.known[b > x.known]).tolist():
            enough = False
            x.work_out(np.flatnonzero((b > x.known) & (x.known == rise)), rise + 1)
    return enough
