"""Which views of the images statistics are taken of, and which half of the set each belongs to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.passes.allocation.measuring import measure_losses
from onnx_esn.passes.allocation.trials import TrialOptions, compress_to
from onnx_esn.passes.layers.costs import total_cost
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.statistics import LayerStatistics, WalkOptions
from onnx_esn.passes.layerwise.walk import walk
from onnx_esn.passes.quantizing import compensation
from tests.net import Net


def chain() -> onnx.ModelProto:
    net = Net(3, 16, 16, seed=1)
    x = net.op("Relu", net.conv("x", 3, 8, k=1))
    x = net.op("Relu", net.conv(x, 8, 8, k=1))
    return net.model(net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), 8, 5))


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3, 16, 16)).astype(np.float32)


def images_of(array: np.ndarray, model: onnx.ModelProto) -> CalibrationSet:
    return open_set(array, input_specs(model))


def flat(values: list[float]) -> np.ndarray:
    return np.ones((len(values), 3, 16, 16), np.float32) * np.float32(values)[:, None, None, None]


class Shown:
    """A solver that leaves the weights and keeps what it was shown."""

    def __init__(self) -> None:
        self.layers: dict[str, LayerStatistics] = {}

    def __call__(self, statistics: LayerStatistics) -> np.ndarray:
        self.layers[statistics.layer.name] = statistics
        return statistics.W


def names_of(model: onnx.ModelProto) -> list[str]:
    return [n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm")]


@pytest.mark.parametrize(("views", "of_each"), [(None, 4), (1, 1), (3, 3)])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_solver_judges_on_other_images(views, of_each, batch_size):
    """Images of one half are 0, those of the other 1, in whatever view."""
    model, solver = chain(), Shown()
    images = images_of(flat([0, 1, 0, 1, 0]), model)
    options = WalkOptions(views=views, batch_size=batch_size)
    names = names_of(model)
    walk(model, model, images, solver, names, options)
    first = solver.layers[names[0]]
    assert [h.x_mean.round(6).max() for h in first.halves] == [0.0, 1.0]
    assert [h.x_mean.round(6).min() for h in first.halves] == [0.0, 1.0]
    # The last layer has one position: so many as there are views.
    assert [h.count for h in solver.layers[names[2]].halves] == [3 * of_each, 2 * of_each]


def test_what_is_observed_is_what_is_walked():
    """Outputs of the reference that are known beforehand are those that the walk would find."""
    model, options = chain(), WalkOptions(views=3)
    images = images_of(noise(6), model)
    names = names_of(model)
    one, two = Shown(), Shown()
    walk(model, model, images, one, names, options)
    views = options.views_of(images)
    taken = observe(model, views, names, options, inputs=False).taken
    walk(model, model, views, two, names, options, taken)
    for name in names:
        for a, b in zip(one.layers[name].halves, two.layers[name].halves, strict=True):
            assert a.count == b.count
            for key in ("xx", "yx", "yy", "x_mean", "y_mean"):
                assert np.array_equal(getattr(a, key), getattr(b, key))
        # Weights as they are make what is wanted.
        assert one.layers[name].moments.yy.min() > 0


def test_halves_are_observed_apart():
    model = chain()
    images = images_of(flat([0, 1, 0, 1, 2]), model).with_views(3, apart=[4])
    held = images.all_views_of([4]).tolist()
    seen = observe(model, images, names_of(model), WalkOptions(), held=held)
    even, odd, judging = (part.x_mean.round(6) for part in seen.parts[names_of(model)[0]])
    assert (np.unique(even), np.unique(odd), np.unique(judging)) == (0.0, 1.0, 2.0)


def test_what_is_known_is_known_of_these_views():
    model = chain()
    images = images_of(noise(6), model)
    options, names = WalkOptions(), names_of(model)
    known = Known()
    known.is_of(model)
    sets = [images, images.with_views(2), images.with_views(2, seed=1), images.with_views(3)]
    keys = {known.key(model, s, names) for s in sets}
    assert len(keys) == 4
    seen = [observe(model, s, names, options).parts[names[0]][0].xx for s in sets]
    assert len({x.tobytes() for x in seen}) == 4
    assert known.key(model, images.with_views(2), names) in keys


def test_no_loss_is_measured_on_images_that_judge():
    model = chain()
    judging = [1, 4]
    images = images_of(flat([0, 1, 0, 0, 1, 0, 0, 0]), model).with_views(4, apart=judging)
    losses = measure_losses(model, images, passes=0, held=judging)
    moments = losses.moments[names_of(model)[0]]
    assert np.abs(moments.mean).max() == 0.0
    assert np.abs(moments.H).max() == 0.0
    assert np.abs(moments.half).max() == 0.0
    assert np.abs(moments.whole).max() > 0.1


def test_trials_see_no_view_of_images_that_judge_them(monkeypatch):
    model = chain()
    values = [0.0, 1.0] * 10  # unlike, so that outputs differ
    images = images_of(flat(values) + 0.1 * noise(20), model)
    seen: list[CalibrationSet] = []
    plain = compensation.Compensate.__call__

    def watched(self, model):
        seen.append(self.images)
        return plain(self, model)

    monkeypatch.setattr(compensation.Compensate, "__call__", watched)
    options = TrialOptions(walk=WalkOptions(views=3))
    _, trials = compress_to(model, model, images, 0.08 * total_cost(model), options)
    assert len(trials) == 2
    judging = set(images.split_indices(0.2)[1].tolist())
    assert len(judging) == 4
    *tried, done = seen
    assert [len(s) for s in tried] == [3 * 16] * len(trials)
    assert len(done) == 3 * 20
    for part in tried:
        indices, views = part.selection
        assert views is not None
        assert not judging & set(indices.tolist())
        assert not judging & set(views.mate.tolist())
