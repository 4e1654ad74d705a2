"""How well two models' outputs agree on the same inputs, and how often outputs are right.

A *classifier* output is (N, C) or (N, C, 1, …) with C ≥ 2. Its Kullback–Leibler divergence is taken
between softmax(reference) and softmax(candidate); outputs whose rows already are probabilities are
used as they are, and log-probabilities need no rule, as softmax leaves them unchanged.

A *map of classes* has a distribution at each place: it is not negative and sums to 1 along its last
axis or along that behind N, as behind the Softmax of a text recognizer. *Labels* are integers of 32
or 64 bits, as behind an ArgMax, or booleans: they are equal or not. All other outputs are numbers,
of which each channel counts alike (`output_error`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import LabelsError, VerificationError
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.output_error import (
    channel_axis,
    channel_squares,
    error_ratio,
    noise_shares,
    sample_errors,
)

_LOG_BETA = (-5.0, 5.0)
_LEAST_PROBABILITY = 1e-12  # a softmax in float32 underflows to 0, whose logarithm is infinite
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Agreement:
    """Agreement of a candidate with a reference over N samples.

    top1: share of samples (of places, in a map of classes) with the same largest class, or of equal
        labels; None for numbers.
    cosine: mean over samples of the cosine between the outputs; 1 if both are zero, 0 if one is.
    snr_db: −10·log10(normalized_error); float("inf") where they are equal, −inf for a zero ref.
    kl: mean KL(reference ‖ candidate) in nats over samples, or places; only for classes.
    normalized_error: noise over signal, each channel counting alike (`output_error`); of classes
        and labels Σ(cand − ref)²/Σref². 0 where equal, inf where only the reference is zero.
    """

    top1: float | None
    cosine: float
    snr_db: float
    kl: float | None
    normalized_error: float
    samples: int


class Measured(NamedTuple):
    """An agreement, with the sums of squares (C,) by channel that its error is made of."""

    agreement: Agreement
    signal: Floats
    noise: Floats


def agreement(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> Agreement:
    """Return how well the outputs `candidate` (N, ...) agree with `reference` (N, ...).

    Raises:
        VerificationError: shapes differ, there is no sample, or a value is not finite.
    """
    return measured(reference, candidate).agreement


def measured(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> Measured:
    """Return the same with what more samples can be added to.

    Raises:
        VerificationError: as there.
    """
    ref, cand = _pair(reference, candidate)
    for name, values in (("reference", ref), ("candidate", cand)):
        if not np.isfinite(values).all():
            raise VerificationError(f"the outputs of the {name} are not finite (NaN or infinity)")
    top1 = kl = None
    axis, classes = channel_axis(ref.shape), class_axis(ref)
    if are_labels(reference):
        axis, top1 = None, float((ref == cand).mean())
    elif classes is not None:
        axis = None
        a, b = _rows(ref, classes), _rows(cand, classes)
        top1, kl = float((a.argmax(axis=1) == b.argmax(axis=1)).mean()), _divergence_kl(a, b)
    signal, noise = (x.sum(axis=0) for x in channel_squares(ref, cand, axis))
    error = error_ratio(noise_shares(signal, noise))
    with np.errstate(divide="ignore"):
        snr_db = float(-10.0 * np.log10(error))
    found = Agreement(top1, _cosine(ref, cand), snr_db, kl, error, ref.shape[0])
    return Measured(found, signal, noise)


def divergence(refs: Mapping[str, npt.ArrayLike], cands: Mapping[str, npt.ArrayLike]) -> float:
    """Return one number for all outputs of a model, by which a change is accepted or refused.

    The mean over the outputs of `refs` of the KL divergence for classifiers, at the temperature of
    the candidate that suits it best, of the mean KL divergence over the places of a map of classes,
    of the share of labels that differ, and of the normalised squared error for others. A candidate
    with NaN or infinity diverges infinitely.

    The temperature is free because it changes no decision, while plain KL favours a candidate that
    is unsure of everything over a better one that is too sure of itself.

    Raises:
        VerificationError: an output is missing or of another shape, or a reference is not finite.
    """
    return float(np.mean([max(term.mean(), 0.0) for term in _terms(refs, cands)]))


def divergences(refs: Mapping[str, npt.ArrayLike], cands: Mapping[str, npt.ArrayLike]) -> Floats:
    """Return what each sample (N,) has of `divergence`, which is the mean over them.

    Where outputs are equal, rounding may leave it a little below 0.

    Raises:
        VerificationError: as there; outputs differ in how many samples they have.
    """
    terms = _terms(refs, cands)
    if len({term.size for term in terms}) > 1:
        raise VerificationError("outputs differ in how many samples they have")
    return np.asarray(np.mean(terms, axis=0))


def _terms(refs: Mapping[str, npt.ArrayLike], cands: Mapping[str, npt.ArrayLike]) -> list[Floats]:
    """What each sample of each output diverges by; an output that is a number is one sample."""
    if not refs:
        raise VerificationError("there is no output to compare")
    terms = []
    for name, output in refs.items():
        if name not in cands:
            raise VerificationError(f"the candidate has no output {name!r}")
        ref, cand = _pair(output, cands[name])
        if not np.isfinite(ref).all():
            raise VerificationError(f"the reference's output {name!r} is not finite")
        if not np.isfinite(cand).all():
            terms.append(np.full(len(ref) if ref.ndim else 1, np.inf))
        elif are_labels(output):
            terms.append((ref != cand).reshape(len(ref), -1).mean(axis=1))
        elif is_classifier(ref):
            shape = ref.shape[:2]
            terms.append(_tempered_kl(ref.reshape(shape), cand.reshape(shape)))
        elif (axis := class_axis(ref)) is not None:
            places = _kl_divergences(_rows(ref, axis), _rows(cand, axis))
            terms.append(np.asarray(places.reshape(len(ref), -1).mean(axis=1)))
        else:
            terms.append(sample_errors(*channel_squares(ref, cand, channel_axis(ref.shape))))
    return terms


def accuracy(outputs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the share of samples whose largest output (N, C[, 1, …]) is at the label (N,).

    Raises:
        LabelsError: the labels do not fit the outputs.
    """
    scores, truth = np.asarray(outputs), np.asarray(labels)
    if not is_classifier(scores):
        raise LabelsError(f"outputs of shape {scores.shape} are not class scores (N, C)")
    N, C = scores.shape[:2]
    if truth.shape != (N,) or not N:
        raise LabelsError(f"{N} outputs, but labels of shape {truth.shape}")
    if not np.issubdtype(truth.dtype, np.integer):
        raise LabelsError(f"labels must be integers, not {truth.dtype}")
    if truth.min() < 0 or truth.max() >= C:
        raise LabelsError(f"labels {truth.min()}..{truth.max()} do not fit {C} classes")
    return float((scores.reshape(N, C).argmax(axis=1) == truth).mean())


def _pair(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> tuple[Floats, Floats]:
    ref, cand = np.asarray(reference), np.asarray(candidate)
    if ref.shape != cand.shape:
        raise VerificationError(f"outputs of shapes {ref.shape} and {cand.shape} do not compare")
    if not ref.ndim or not ref.size:
        raise VerificationError(f"outputs of shape {ref.shape} hold no sample")
    return ref.astype(np.float64), cand.astype(np.float64)


def is_classifier(x: npt.NDArray[np.generic]) -> bool:
    """Whether outputs are class scores, by their shape."""
    return x.ndim >= 2 and x.shape[1] >= 2 and all(n == 1 for n in x.shape[2:])


def are_labels(x: npt.ArrayLike) -> bool:
    """Whether outputs are labels, by their type; small integers are pixels, say."""
    return np.asarray(x).dtype in (np.int32, np.int64, np.bool_)


def is_probability(x: Floats, axis: int = 1) -> bool:
    """Whether x has distributions along an axis."""
    return bool((x >= 0).all() and np.allclose(x.sum(axis=axis), 1.0, rtol=0, atol=_SUM_TOLERANCE))


def class_axis(x: Floats) -> int | None:
    """The axis of the classes of an output, of one row or of a map; None: it holds numbers."""
    if is_classifier(x):
        return 1
    if x.ndim > 2 and x.size:
        for axis in (x.ndim - 1, 1):
            if x.shape[axis] >= 2 and is_probability(x, axis):
                return axis
    return None


def _rows(x: Floats, axis: int) -> Floats:
    """The classes (…, C) of each sample or place as rows."""
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _divergence_kl(ref: Floats, cand: Floats) -> float:
    return max(float(_kl_divergences(ref, cand).mean()), 0.0)


def _kl_divergences(ref: Floats, cand: Floats) -> Floats:
    """KL(ref ‖ cand) of each row (N,)."""
    log_p, log_q = _log_softmaxes(ref, cand)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def _tempered_kl(ref: Floats, cand: Floats) -> Floats:
    """KL(ref ‖ softmax(β·log q)) of each row (N,), at the β of the least mean.

    That is convex in β, the inverse temperature.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    log_p, log_q = _log_softmaxes(ref, cand)
    p = np.exp(log_p)

    def kl(log_beta: float) -> Floats:
        q = log_softmax(np.exp(log_beta) * log_q, axis=1)
        return np.asarray((p * (log_p - q)).sum(axis=1))

    def mean(log_beta: float) -> float:
        return float(kl(log_beta).mean())

    best = minimize_scalar(mean, bounds=_LOG_BETA, method="bounded", options={"xatol": 1e-6})
    return kl(float(best.x) if best.fun < mean(0.0) else 0.0)


def _log_softmaxes(ref: Floats, cand: Floats) -> tuple[Floats, Floats]:
    from scipy.special import log_softmax

    if is_probability(ref) and is_probability(cand):
        return _log_probability(ref), _log_probability(cand)
    return np.asarray(log_softmax(ref, axis=1)), np.asarray(log_softmax(cand, axis=1))


def _log_probability(x: Floats) -> Floats:
    p = np.maximum(x, _LEAST_PROBABILITY)
    return np.asarray(np.log(p / p.sum(axis=1, keepdims=True)))


def _cosine(ref: Floats, cand: Floats) -> float:
    a, b = ref.reshape(ref.shape[0], -1), cand.reshape(ref.shape[0], -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dot = np.einsum("nk,nk->n", a, b)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosine = np.where(norms > 0, dot / np.where(norms > 0, norms, 1.0), both_zero)
    return float(cosine.mean())
