from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.compensation import DAMPING, compensated_codes
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD, QUANTIZERS, Quantizer

Floats = npt.NDArray[np.float64]
BOTH = pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)


def error(W: Floats, other: Floats, H: Floats) -> Floats:
    """(w − ŵ)ᵀ H (w − ŵ) of each filter, one by one."""
    found = np.zeros(W.shape[:2])
    for g, m in np.ndindex(*found.shape):
        gap = W[g, m] - other[g, m]
        found[g, m] = gap @ H[g] @ gap
    return found


def damped(H: Floats) -> Floats:
    """The moments that are really minimised over; what the damping adds is documented."""
    out = np.array(H, np.float64)
    for matrix in out:
        mean = matrix.diagonal().mean()
        matrix += (DAMPING * mean if mean > 0 else 1.0) * np.eye(len(matrix))
    return out


def plain(W: Floats, bits: npt.ArrayLike, quantizer: Quantizer) -> Floats:
    """Rounding to nearest at the step of least squared error."""
    flat = W.reshape(-1, W.shape[2])
    b = np.broadcast_to(bits, W.shape[:2]).reshape(-1)
    step = quantizer.optimal_step(flat, b)
    return (quantizer.encode(flat, step, b) * step[:, None]).reshape(W.shape)


def moments(
    rng: np.random.Generator, G: int, d: int, rank: int | None = None, spread: float = 1.0
) -> Floats:
    """Second moments of correlated inputs, of this rank."""
    rank = d if rank is None else rank
    A = rng.normal(size=(G, rank, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d)))
    A *= np.exp(spread * rng.normal(size=d))
    return np.asarray(A.transpose(0, 2, 1) @ A / max(rank, 1))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Filters, moments of full rank or less, and bits for each filter."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    G, m, d = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 12))
    H = moments(rng, G, d, draw(st.integers(0, d)), draw(st.sampled_from([0.0, 1.0, 2.5])))
    W = rng.normal(size=(G, m, d)) * 10.0 ** draw(st.integers(-4, 3))
    if draw(st.booleans()):  # what no input excites
        W = W @ (np.eye(d) - np.linalg.pinv(H) @ H)
        W[np.abs(W).max(axis=2) < 1e-9 * np.abs(W).max(initial=1e-300)] = 0
    return W, H, rng.integers(0, 7, (G, m))


@BOTH
@settings(max_examples=150)
@given(problem=problems())
def test_never_worse_than_plain_rounding_at_its_own_step(
    quantizer: Quantizer, problem: tuple[Floats, Floats, npt.NDArray[np.int64]]
) -> None:
    W, H, bits = problem
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    H = damped(H)
    found, nearest = (error(W, x, H) for x in (codes * step[..., None], plain(W, bits, quantizer)))
    # Sums are made in float32.
    assert (found <= nearest + 1e-5 * error(W, np.zeros_like(W), H)).all()


@BOTH
@settings(max_examples=80)
@given(problem=problems())
def test_codes_are_on_the_grid_within_their_bits(
    quantizer: Quantizer, problem: tuple[Floats, Floats, npt.NDArray[np.int64]]
) -> None:
    W, H, bits = problem
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    assert codes.shape == W.shape
    assert step.shape == W.shape[:2]
    assert np.isfinite(step).all()
    assert (step >= 0).all()
    live = codes.any(axis=2)
    np.testing.assert_array_equal(step > 0, live)
    assert not live[(bits < quantizer.least_bits) | ~W.any(axis=2)].any()
    assert (np.abs(codes) <= quantizer.top_code(bits)[..., None]).all()
    offset = 0.5 if quantizer is MID_RISE else 0.0
    np.testing.assert_array_equal(codes[live] % 1.0, offset)
    if quantizer is MID_RISE:  # it has no zero: whatever has bits lives
        assert live[(bits > 0) & W.any(axis=2)].all()


def least_error(w: Floats, H: Floats, levels: Floats) -> float:
    """Every combination of codes, each at its best step (which no grid of steps can beat)."""
    best = float(w @ H @ w)
    for codes in itertools.product(levels, repeat=len(w)):
        c = np.array(codes)
        q, a = c @ H @ c, w @ H @ c
        if q > 0 and a > 0:
            best = min(best, float(w @ H @ w - a * a / q))
    return best


@BOTH
@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [1, 2])
def test_near_the_best_of_all_codes(quantizer: Quantizer, d: int, bits: int) -> None:
    if bits < quantizer.least_bits:
        pytest.skip("no such codes")
    rng = np.random.default_rng([d, bits])
    G, m = 12, 5
    W, H = rng.normal(size=(G, m, d)), moments(rng, G, d)
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    H = damped(H)
    found = error(W, codes * step[..., None], H)
    top = float(quantizer.top_code(bits))
    levels = np.arange(-top, top + 1)
    least = np.array([[least_error(w, H[g], levels) for w in W[g]] for g in range(G)])
    assert (found >= least - 1e-9).all()  # the oracle is one
    energy = error(W, np.zeros_like(W), H)
    assert (found <= energy * (1 + 1e-9)).all()  # no worse than no filter at all
    lost, plainly = ((x - least) / energy for x in (found, error(W, plain(W, bits, quantizer), H)))
    # It is a heuristic: most are the best, and plain rounding loses much more.
    assert (lost < 1e-6).mean() >= 0.75
    assert lost.mean() < 0.05
    assert lost.mean() <= 0.2 * plainly.mean() + 1e-12


@BOTH
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_independent_inputs_leave_nothing_to_compensate(quantizer: Quantizer, bits: int) -> None:
    rng = np.random.default_rng(bits)
    W = rng.normal(size=(2, 6, 20))
    H = np.stack([np.eye(20), 7.0 * np.eye(20)])
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    found = ((W - codes * step[..., None]) ** 2).sum(axis=2)
    nearest = ((W - plain(W, bits, quantizer)) ** 2).sum(axis=2)
    # `optimal_step` is the best there is.
    np.testing.assert_allclose(found, nearest, rtol=1e-2)
    assert (found >= nearest * (1 - 1e-6)).all()


@BOTH
def test_correlated_inputs_gain_much(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(1, 2000, 6)) @ rng.normal(size=(6, 36))
    x = latent + 0.1 * rng.normal(size=(1, 2000, 36))
    H, W = x.transpose(0, 2, 1) @ x / 2000, rng.normal(size=(1, 16, 36))
    codes, step = compensated_codes(W, H, 3, quantizer=quantizer)
    found = error(W, codes * step[..., None], H).sum()
    assert found < 0.3 * error(W, plain(W, 3, quantizer), H).sum()


@BOTH
@pytest.mark.parametrize("rank", [3, 20])
def test_sweeps_never_increase_the_error(quantizer: Quantizer, rank: int) -> None:
    rng = np.random.default_rng(rank)
    W, H = rng.normal(size=(3, 4, 20)), moments(rng, 3, 20, rank)
    target = damped(H)
    energy = error(W, np.zeros_like(W), target)
    errors = []
    for sweeps in range(7):
        codes, step = compensated_codes(W, H, 3, quantizer=quantizer, sweeps=sweeps, survivors=1)
        errors.append(error(W, codes * step[..., None], target))
    for before, after in itertools.pairwise(errors):
        assert (after <= before + 1e-6 * energy).all()
    assert errors[-1].sum() <= errors[0].sum() * (1 + 1e-9)


@BOTH
def test_more_inputs_than_one_block(quantizer: Quantizer) -> None:
    """Blocks of 64 inputs are bookkeeping; 150 inputs cross two of their edges."""
    rng = np.random.default_rng(1)
    W, H = rng.normal(size=(1, 3, 150)), moments(rng, 1, 150, 200)
    codes, step = compensated_codes(W, H, 3, quantizer=quantizer)
    target = damped(H)
    found = error(W, codes * step[..., None], target)
    assert (found < 0.5 * error(W, plain(W, 3, quantizer), target)).all()
    # Coordinate descent has converged to where no single code can be improved much.
    gap = codes * step[..., None] - W
    gradient = gap @ target
    for change in (-1.0, 1.0):
        new = codes + change
        allowed = np.abs(new) <= quantizer.top_code(3)
        by = change * step[..., None]
        gain = -(2 * by * gradient + by**2 * target[:, None].diagonal(axis1=2, axis2=3))
        assert np.where(allowed, gain, 0).max() < 0.05 * found.max()


@BOTH
def test_zero_bits_zero_filters_and_dead_inputs(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(2)
    W, H = rng.normal(size=(2, 4, 5)), moments(rng, 2, 5)
    W[0, 1] = 0
    H[1] = 0
    bits = np.array([[3, 3, 0, 2], [3, 0, 3, 3]])
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    dead = (bits == 0) | ~W.any(axis=2)
    assert not codes[dead].any()
    assert not step[dead].any()
    assert (step[~dead] > 0).all()
    # A group without inputs is rounded as if all of them were alike: near plain rounding.
    live = ~dead[1]
    gap = ((W - codes * step[..., None])[1] ** 2).sum(axis=1)[live]
    nearest = ((W - plain(W, bits, quantizer))[1] ** 2).sum(axis=1)[live]
    np.testing.assert_allclose(gap, nearest, rtol=1e-6)


@BOTH
def test_weights_on_inputs_that_never_come_are_not_blown_up(quantizer: Quantizer) -> None:
    """Errors there are free, and still the step has to have something to do with the weights."""
    rng = np.random.default_rng(3)
    v = rng.normal(size=(40, 1, 4))
    H = v.transpose(0, 2, 1) @ v
    W = 1e-4 * rng.normal(size=(40, 6, 4))
    W -= (W @ v.transpose(0, 2, 1)) / (v @ v.transpose(0, 2, 1)) * v  # at right angles to v
    codes, step = compensated_codes(W, H, 2, quantizer=quantizer)
    assert (np.abs(codes * step[..., None]).max(axis=2) <= 10 * np.abs(W).max(axis=2)).all()


@BOTH
def test_groups_and_filters_do_not_know_of_each_other(
    quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    W, H = rng.normal(size=(5, 3, 9)), moments(rng, 5, 9)
    bits = rng.integers(0, 6, (5, 3))
    codes, step = compensated_codes(W, H, bits, quantizer=quantizer)
    for g in range(5):
        one = compensated_codes(W[g : g + 1], H[g : g + 1], bits[g : g + 1], quantizer=quantizer)
        np.testing.assert_array_equal(one[0][0], codes[g])
        np.testing.assert_allclose(one[1][0], step[g], rtol=1e-12)
    # A few filters at a time.
    monkeypatch.setattr("onnx_esn.numerics.compensation._AT_ONCE", 1)
    parts = compensated_codes(W, H, bits, quantizer=quantizer)
    np.testing.assert_array_equal(parts[0], codes)
    np.testing.assert_allclose(parts[1], step, rtol=1e-12)


@BOTH
def test_the_order_of_the_inputs_does_not_matter(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(5)
    W, H = rng.normal(size=(2, 4, 8)), moments(rng, 2, 8)
    codes, step = compensated_codes(W, H, 3, quantizer=quantizer)
    at = rng.permutation(8)
    other = compensated_codes(W[..., at], H[:, at][:, :, at], 3, quantizer=quantizer)
    np.testing.assert_array_equal(other[0], codes[..., at])
    np.testing.assert_allclose(other[1], step, rtol=1e-9)


@BOTH
@pytest.mark.parametrize("scale", [2.0**-20, 0.25, 8.0, 2.0**30])
def test_steps_follow_the_scale_of_the_weights(quantizer: Quantizer, scale: float) -> None:
    rng = np.random.default_rng(6)
    W, H = rng.normal(size=(2, 4, 10)), moments(rng, 2, 10)
    codes, step = compensated_codes(W, H, 3, quantizer=quantizer)
    scaled = compensated_codes(W * scale, H, 3, quantizer=quantizer)
    np.testing.assert_array_equal(scaled[0], codes)
    np.testing.assert_allclose(scaled[1], step * scale, rtol=1e-9)
    loud = compensated_codes(W, H * scale, 3, quantizer=quantizer)
    np.testing.assert_array_equal(loud[0], codes)
    np.testing.assert_allclose(loud[1], step, rtol=1e-9)


@BOTH
def test_the_same_bytes_again_and_arguments_left_alone(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(7)
    W, H = rng.normal(size=(2, 4, 30)), moments(rng, 2, 30, 12)
    before = W.tobytes(), H.tobytes()
    one, other = (compensated_codes(W, H, 4, quantizer=quantizer) for _ in range(2))
    assert [x.tobytes() for x in one] == [x.tobytes() for x in other]
    assert (W.tobytes(), H.tobytes()) == before


def test_codes_that_are_there_already_come_back() -> None:
    rng = np.random.default_rng(8)
    codes = rng.integers(-4, 4, (1, 6, 40)) + 0.5
    H = moments(rng, 1, 40)
    found, step = compensated_codes(codes * 0.37, H, 3)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_allclose(step, 0.37, rtol=1e-6)


def test_no_filters() -> None:
    codes, step = compensated_codes(np.zeros((2, 0, 3)), np.stack([np.eye(3)] * 2), 3)
    assert codes.shape == (2, 0, 3)
    assert step.shape == (2, 0)


def test_weights_that_are_not_finite_are_refused() -> None:
    W = np.ones((1, 2, 3))
    W[0, 1, 2] = np.nan
    with pytest.raises(VerificationError, match="finite"):
        compensated_codes(W, np.eye(3)[None], 3)


def test_one_bit_has_no_mid_tread_codes() -> None:
    codes, step = compensated_codes(np.ones((1, 2, 3)), np.eye(3)[None], 1, quantizer=MID_TREAD)
    assert not codes.any()
    assert not step.any()
