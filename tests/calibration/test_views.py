"""Further views of few images: what they show, and that they stay what they are in any part."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

import onnx_esn
from onnx_esn.calibration import input_specs, open_set
from onnx_esn.calibration.views import CUT, FEW, VIEWS, usual_views
from onnx_esn.errors import OptionError
from onnx_esn.passes.layerwise.statistics import WalkOptions
from tests.test_cli import IMAGES, LABELED


def fed(shape, dtype=TensorProto.FLOAT, inputs=1):
    names = [f"x{i}" for i in range(inputs)]
    given_ = [helper.make_tensor_value_info(name, dtype, ["n", *shape]) for name in names]
    nodes = [helper.make_node("Identity", [name], [f"y{name}"]) for name in names]
    out = [helper.make_tensor_value_info(f"y{name}", dtype, ["n", *shape]) for name in names]
    graph = helper.make_graph(nodes, "g", given_, out)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples_of(images, size=7):
    return np.concatenate([next(iter(b.feeds.values())) for b in images.batches(size)])


def opened(array, **options):
    return open_set(array, input_specs(fed(array.shape[1:], **options)))


def noise(n, shape=(3, 20, 24)):
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def flat(n, shape=(3, 20, 24)):
    """Image i is i everywhere."""
    return np.ones((n, *shape), np.float32) * np.arange(n, dtype=np.float32)[:, None, None, None]


def test_the_images_come_first_as_they_are():
    array = noise(5)
    images = opened(array)
    views = images.with_views(3)
    assert len(views) == 15
    shown = samples_of(views)
    assert np.array_equal(shown[:5], array)
    assert not any(np.array_equal(shown[i], array[i % 5]) for i in range(5, 15))
    assert np.array_equal(samples_of(views.as_they_are), array)
    assert views.halves.tolist() == [0, 1, 0, 1, 0] * 3
    assert views.all_views_of([1, 4]).tolist() == [1, 4, 6, 9, 11, 14]
    assert images.all_views_of([1, 4]).tolist() == [1, 4]
    assert images.halves.tolist() == [0, 1, 0, 1, 0]
    assert images.as_they_are is images


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 3), st.data())
def test_a_view_is_the_same_in_every_part(n, count, seed, data):
    views = opened(noise(n)).with_views(count, seed=seed)
    whole = samples_of(views)
    some = data.draw(st.lists(st.integers(0, len(views) - 1), min_size=1, max_size=6))
    part = views.subset(some)
    assert np.array_equal(samples_of(part, data.draw(st.integers(1, 5))), whole[some])
    assert part.halves.tolist() == views.halves[some].tolist()
    # As on another machine, which has the same samples.
    again = opened(noise(n)).among_samples(*part.selection)
    assert np.array_equal(samples_of(again), whole[some])


@given(st.integers(2, 12), st.integers(2, 6), st.sets(st.integers(0, 11), max_size=5), st.data())
def test_two_in_one_are_of_one_half_with_a_straight_cut(n, count, apart, data):
    shape = (2, data.draw(st.integers(16, 30)), data.draw(st.integers(16, 30)))
    apart = {i for i in apart if i < n}
    views = opened(flat(n, shape)).with_views(count, apart=apart)
    for row, shown in enumerate(samples_of(views)):
        assert np.array_equal(shown[0], shown[1]), "channels stay together"
        own, values = row % n, np.round(np.unique(shown), 3).tolist()
        assert own in np.round(values)
        assert len(values) <= 2
        assert {round(v) % 2 for v in values} == {own % 2}
        assert len({round(v) in apart for v in values}) == 1
        if len(values) == 2:
            image = np.round(shown[0]) == own
            lines = image.all(axis=0).mean(), image.all(axis=1).mean()
            assert image.mean() == pytest.approx(max(lines)), "whole rows, or whole columns"
            assert CUT - 1 / 16 <= image.mean() <= 1 - CUT + 1 / 16


def test_nothing_is_mirrored_and_nothing_far_away():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (6, 1, 32, 40))
    for values in (ramp, np.ascontiguousarray(np.swapaxes(ramp, 2, 3))):
        shown = samples_of(opened(values).with_views(8))
        along = shown if values is ramp else np.swapaxes(shown, 2, 3)
        steps = np.diff(along, axis=3)
        # At most one step back, where another image begins.
        assert ((steps < -1e-3).sum(axis=3) <= 1).all()
        assert (np.abs(np.diff(along, axis=2)) > 1e-3).any(axis=(1, 2, 3)).sum() < len(shown)
        assert shown.min() > -0.5
        assert shown.max() < 39.5
        # A rectangle has at least √(AREA / ASPECT) of the width.
        assert 0.5 < np.median(steps[6:]) < 1.0


def test_channels_may_come_last():
    first = noise(4)
    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))
    views = samples_of(opened(last).with_views(3))
    assert np.array_equal(np.moveaxis(views, -1, 1), samples_of(opened(first).with_views(3)))


def test_integers_stay_integers():
    array = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16)).astype(np.uint8)
    views = samples_of(opened(array, dtype=TensorProto.UINT8).with_views(4))
    assert views.dtype == np.uint8
    assert np.array_equal(views[:4], array)
    smooth = samples_of(opened(array.astype(np.float32)).with_views(4))
    assert np.array_equal(views, np.clip(np.rint(smooth), 0, 255))


def test_image_files_have_views_of_what_the_recipe_makes_of_them(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    (tmp_path / "recipe.toml").write_text("resize = [24, 24]\nmean = 0.5\nstd = 0.25\n")
    images = open_set(tmp_path, input_specs(fed((3, 24, 24))))
    ready = opened(samples_of(images))
    assert np.array_equal(samples_of(images.with_views(3)), samples_of(ready.with_views(3)))


@pytest.mark.parametrize("shape", [(12,), (3, 15, 40), (3, 40, 15), (4, 20, 20, 20)])
def test_what_is_no_picture_stays_as_it_is(shape):
    images = opened(noise(4, shape))
    assert images.with_views(4) is images


def test_inputs_that_belong_together_stay_as_they_are():
    array = noise(4)
    images = open_set({"x0": array, "x1": array}, input_specs(fed(array.shape[1:], inputs=2)))
    assert images.with_views(4) is images


def test_how_many():
    assert usual_views(FEW) == VIEWS > 1
    assert usual_views(FEW + 1) == 1
    array = noise(6)
    images = opened(array)
    assert len(images.with_views()) == 6 * VIEWS
    assert images.with_views(1) is images
    views = images.with_views(2)
    assert views.with_views(3) is views
    for wrong in (0, -1, 2.5, "4"):
        with pytest.raises(OptionError, match=f"views of each image: {wrong!r} is not a whole"):
            images.with_views(wrong)
    assert len(WalkOptions(views=2).views_of(images)) == 12
    assert (
        samples_of(WalkOptions(views=2, seed=1).views_of(images)).tobytes()
        != samples_of(views).tobytes()
    )


def test_labels_and_files_are_not_those_of_views(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    images = open_set(tmp_path, input_specs(fed((3, 20, 20))))
    assert images.files is not None
    assert images.with_views(2).files is None


def test_verbs_see_them(slim, few):
    """As many as are asked for, the usual number without being asked."""
    made = {
        views: onnx_esn.quantize(slim, bits=3, images=few, views=views).model.SerializeToString(
            deterministic=True
        )
        for views in (None, 1, 2, VIEWS)
    }
    assert made[None] == made[VIEWS]
    assert len(set(made.values())) == 3
    assert onnx_esn.quantize(slim, bits=3, images=few, views=2).details["views"] == 2
    refitted = [onnx_esn.prune(slim, ratio=0.2, images=few, views=v).model for v in (1, 2)]
    assert refitted[0] != refitted[1]


def test_few_images_say_more_with_them(slim):
    """Of two dozen images, by what 200 others say."""
    specs = input_specs(onnx.load(slim))
    some, others = open_set(IMAGES, specs).take(24), open_set(LABELED, specs).take(200)
    made = [onnx_esn.quantize(slim, bits=3, images=some, views=v).model for v in (1, VIEWS)]
    found = onnx_esn.evaluate([slim, *made], others, latency=False).models[1:]
    without, with_them = (x.agreement.kl for x in found)
    assert with_them < 0.85 * without
