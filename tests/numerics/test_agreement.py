import math

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from onnx_esn.errors import LabelsError, VerificationError
from onnx_esn.numerics.agreement import accuracy, agreement, divergence, divergences

rng = np.random.default_rng(0)
REF = rng.standard_normal((50, 10)) * 3
CAND = REF + rng.standard_normal((50, 10)) * 0.7


def naive(ref, cand):
    pairs = list(zip(ref, cand, strict=True))
    top1 = np.mean([list(r).index(max(r)) == list(s).index(max(s)) for r, s in pairs])
    cosine = np.mean([sum(r * s) / math.hypot(*r) / math.hypot(*s) for r, s in pairs])
    noise = sum((a - b) ** 2 for a, b in zip(ref.ravel(), cand.ravel(), strict=True))
    signal = sum(a**2 for a in ref.ravel())
    kl = 0.0
    for r, s in pairs:
        p, q = np.exp(r) / np.exp(r).sum(), np.exp(s) / np.exp(s).sum()
        kl += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(ref)
    return top1, cosine, 10 * math.log10(signal / noise), kl, noise / signal


def test_agreement_of_a_classifier_equals_the_loops():
    found = agreement(REF, CAND)
    expected = naive(REF, CAND)
    values = (found.top1, found.cosine, found.snr_db, found.kl, found.normalized_error)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    assert found.samples == 50
    assert 0 < found.top1 < 1


def test_trailing_axes_of_one_are_a_classifier_too():
    assert agreement(REF[:, :, None, None], CAND[:, :, None, None]) == agreement(REF, CAND)


def test_logits_probabilities_and_log_probabilities_have_the_same_divergence():
    logits = divergence({"y": REF}, {"y": CAND})
    probabilities = divergence({"y": softmax(REF, axis=1)}, {"y": softmax(CAND, axis=1)})
    logs = divergence({"y": log_softmax(REF, axis=1)}, {"y": log_softmax(CAND, axis=1)})
    assert probabilities == pytest.approx(logits, rel=1e-6)
    assert logs == pytest.approx(logits, rel=1e-12)


def test_probabilities_of_zero_stay_finite():
    ref = np.array([[1.0, 0.0], [0.5, 0.5]])
    cand = np.array([[0.0, 1.0], [0.5, 0.5]])
    assert agreement(ref, cand).kl == pytest.approx(0.5 * math.log(1e12), rel=1e-9)
    assert agreement(ref, ref).kl == 0.0


def test_equal_outputs():
    found = agreement(REF, REF)
    assert (found.top1, found.kl, found.normalized_error) == (1.0, 0.0, 0.0)
    assert found.snr_db == float("inf")
    assert found.cosine == pytest.approx(1.0, abs=1e-14)
    assert divergence({"a": REF}, {"a": REF}) == 0.0


def test_outputs_of_other_shapes_have_neither_top1_nor_kl():
    for shape in [(4, 1, 5, 5), (4, 1), (4,)]:
        x = rng.standard_normal(shape)
        found = agreement(x, x + 0.1)
        assert found.top1 is None
        assert found.kl is None
        expected = 0.01 * x.size / (x**2).sum()
        assert found.normalized_error == pytest.approx(expected)
        assert divergence({"y": x}, {"y": x + 0.1}) == pytest.approx(expected)


def test_zero_outputs_do_not_warn():
    zero, one = np.zeros((3, 2, 4)), np.ones((3, 2, 4))
    both = agreement(zero, zero)
    assert (both.cosine, both.snr_db, both.normalized_error) == (1.0, math.inf, 0.0)
    ref = agreement(zero, one)
    assert (ref.cosine, ref.snr_db, ref.normalized_error) == (0.0, -math.inf, math.inf)
    assert agreement(one, zero).snr_db == 0.0


def test_divergence_is_the_mean_over_outputs():
    x = rng.standard_normal((50, 2, 3, 3))
    both = divergence({"a": REF, "b": x}, {"b": x * 1.1, "a": CAND, "extra": x})
    assert both == pytest.approx((divergence({"a": REF}, {"a": CAND}) + 0.01) / 2)


def test_what_single_samples_have_of_the_divergence():
    rng = np.random.default_rng(0)
    refs = {"scores": rng.normal(size=(6, 5)), "map": rng.normal(size=(6, 1, 3, 3))}
    cands = {k: v + 0.1 * rng.normal(size=v.shape) for k, v in refs.items()}
    each = divergences(refs, cands)
    assert each.shape == (6,)
    assert each.mean() == pytest.approx(divergence(refs, cands), rel=1e-12)
    noise = np.square(cands["map"] - refs["map"]).sum(axis=(1, 2, 3))
    signal = np.square(refs["map"]).sum() / 6
    maps = {"map": refs["map"]}
    np.testing.assert_allclose(divergences(maps, {"map": cands["map"]}), noise / signal)
    assert np.isinf(divergences(maps, {"map": cands["map"] * np.nan})).all()
    with pytest.raises(VerificationError, match="how many samples"):
        divergences(refs | {"one": np.ones((1, 2))}, cands | {"one": np.ones((1, 2))})


def test_divergence_is_the_least_kl_over_a_grid_of_temperatures():
    grid = min(agreement(REF, CAND * beta).kl for beta in np.geomspace(0.01, 100, 4001))
    assert divergence({"y": REF}, {"y": CAND}) == pytest.approx(grid, rel=1e-5)
    assert divergence({"y": REF}, {"y": CAND}) <= agreement(REF, CAND).kl


def test_divergence_does_not_see_confidence():
    assert divergence({"y": REF}, {"y": 5 * REF}) == pytest.approx(0.0, abs=1e-9)
    assert agreement(REF, 5 * REF).kl > 0.1


def test_a_surer_better_candidate_diverges_less_than_an_unsure_worse_one():
    unsure = 1e-3 * rng.standard_normal(REF.shape)
    surer = 20 * (REF + 0.5 * rng.standard_normal(REF.shape))
    assert agreement(REF, surer).kl > agreement(REF, unsure).kl
    assert divergence({"y": REF}, {"y": surer}) < divergence({"y": REF}, {"y": unsure})


def test_a_broken_candidate_diverges_infinitely():
    broken = CAND.copy()
    broken[3, 3] = np.nan
    assert divergence({"y": REF}, {"y": broken}) == math.inf
    with pytest.raises(VerificationError, match="candidate are not finite"):
        agreement(REF, broken)
    with pytest.raises(VerificationError, match="'y' is not finite"):
        divergence({"y": broken}, {"y": REF})


def test_outputs_that_do_not_compare_are_refused():
    with pytest.raises(VerificationError, match=r"\(50, 10\) and \(50, 9\)"):
        agreement(REF, CAND[:, :9])
    with pytest.raises(VerificationError, match="no sample"):
        agreement(REF[:0], CAND[:0])
    with pytest.raises(VerificationError, match="no output 'y'"):
        divergence({"y": REF}, {"z": CAND})
    with pytest.raises(VerificationError, match="no output to compare"):
        divergence({}, {})


def test_half_precision_outputs_do_not_overflow():
    x = np.full((2, 8), 6e4, np.float16)
    assert agreement(x, x * np.float16(0.5)).normalized_error == pytest.approx(0.25)


def test_accuracy_counts():
    scores = np.eye(4)[[0, 1, 2, 3]]
    assert accuracy(scores, [0, 1, 2, 0]) == 0.75
    assert accuracy(scores[:, :, None, None], np.arange(4)) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "text"),
    [
        (np.eye(4), [0, 1, 2], "4 outputs"),
        (np.eye(4), [0, 1, 2, 4], "0..4 do not fit 4 classes"),
        (np.eye(4), [0, 1, 2, -1], "do not fit"),
        (np.eye(4), [0.0, 1, 2, 3], "integers"),
        (np.ones((4, 3, 2)), [0, 1, 2, 2], "not class scores"),
    ],
)
def test_labels_that_do_not_fit_are_refused(scores, labels, text):
    with pytest.raises(LabelsError, match=text):
        accuracy(scores, labels)
