"""Losses worked out on demand: the same bits as with all of them worked out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.quantizing import bit_choice
from onnx_esn.passes.quantizing.bit_losses import BitLosses, known_enough
from onnx_esn.passes.quantizing.quantizable import find_jobs
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.passes.tiny import two_convs

SAMPLE = "examples/fashion_resnet.onnx"


def losses(model: onnx.ModelProto, most: int) -> list[BitLosses]:
    jobs, _ = find_jobs(model, measured_view(model, None))
    everyone = (np.ones(job.weight.shape[0], dtype=bool) for job in jobs)
    return [BitLosses(job, MID_RISE, live, most) for job, live in zip(jobs, everyone, strict=True)]


def distortion(model: onnx.ModelProto, bits: list[np.ndarray]) -> float:
    """Of all filters at these bits."""
    whole = losses(model, 8)
    return sum(
        float(x.distortion()[np.arange(b.size), b].sum()) for x, b in zip(whole, bits, strict=True)
    )


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.012, 0.25), seed=st.integers(0, 10**6))
def test_a_budget_is_spent_as_well_as_with_all_losses(share: float, seed: int) -> None:
    model = two_convs(seed=seed)
    spent = []
    for known in (1, 8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bit_choice, "_FEWEST_KNOWN", known)
            plan = Quantize(target_cost=f"{100 * share}%")(model).plan
        spent.append(distortion(model, [np.asarray(x.bits) for x in plan.layers]))
    # What is left over in the end is spent by guesses: 20 filters of three layers show it most.
    assert spent[0] <= spent[1] * 1.02


@pytest.mark.parametrize("target", ["4%", "10%", "20%"])
def test_the_sample_gets_the_very_bits(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(SAMPLE)
    lazy = Quantize(target_cost=target)(model).plan
    monkeypatch.setattr(bit_choice, "_FEWEST_KNOWN", 8)
    assert Quantize(target_cost=target)(model).plan == lazy


def test_few_filters_are_looked_at_with_many_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}
    plain = Quantizer.further_bits

    def counted(self, W, steps, errors, most):  # type: ignore[no-untyped-def]
        for bits in range(steps.shape[1], most + 1):
            asked[bits] = asked.get(bits, 0) + W.size
        return plain(self, W, steps, errors, most)

    monkeypatch.setattr(Quantizer, "further_bits", counted)
    Quantize(target_cost="8%")(onnx.load(SAMPLE))
    assert asked[3] == 173840  # all of them
    assert asked[4] < 0.1 * asked[3]
    assert sum(n for bits, n in asked.items() if bits > 5) < 0.02 * asked[3]


def test_what_is_worked_out_bit_by_bit_is_what_is_worked_out_at_once() -> None:
    model = two_convs(seed=3)
    for step, whole in zip(losses(model, 1), losses(model, 8), strict=True):
        some = np.arange(0, step.known.size, 2)
        for most in (3, 8):
            step.work_out(some, most)
        np.testing.assert_array_equal(step.steps[some], whole.steps[some])
        np.testing.assert_array_equal(step.distortion()[some], whole.distortion()[some])
        others = np.arange(1, step.known.size, 2)
        assert (step.known[others] == 1).all()
        assert (step.distortion()[others, 2:] == 0).all()
        first = step.distortion(0.25)[others, 1:4]
        np.testing.assert_allclose(first[:, 1:], first[:, :-1] / 4)


def test_filters_on_a_grid_are_known_to_the_end() -> None:
    gridded = Quantize(bits=3)(two_convs()).model
    for x, whole in zip(losses(gridded, 1), losses(gridded, 8), strict=True):
        assert (x.known == 1).all()
        assert (x.distortion()[:, 2:] == 0).all()
        x.work_out(np.arange(x.known.size), 2)
        assert (x.known == 8).all()
        assert (x.distortion()[:, 2] > 0).all()
        np.testing.assert_array_equal(x.distortion(), whole.distortion())
    for x in losses(two_convs(), 1):
        assert not known_enough([x], np.full(x.known.size, 2))
        assert known_enough([x], np.full(x.known.size, 2))
        assert (x.known == 2).all()
