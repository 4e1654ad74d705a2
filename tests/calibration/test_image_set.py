import logging

import numpy as np
import pytest
from PIL import Image

from onnx_esn.calibration import Recipe, open_set
from onnx_esn.calibration import samples as samples_module
from onnx_esn.errors import ImageSetError, LabelsError, RecipeError

from .tiny import IMAGE_SPEC, all_feeds, save_images, spec

RAW = Recipe(scale=1)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    save_images(root, [f"{index % 3}/{index:02}.png" for index in range(12)])
    return root


def test_recipe_inside_the_folder(folder, caplog):
    (folder / "recipe.toml").write_text("scale = 1\nmean = 127\nstd = 128\n")
    dataset = open_set(folder, [IMAGE_SPEC])
    assert (dataset.name, len(dataset), dataset.warnings) == ("set", 12, ())
    assert list(dataset.files) == sorted(dataset.files)
    expected = np.stack([np.asarray(Image.open(folder / file)) for file in dataset.files])
    expected = (expected.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
    np.testing.assert_allclose(all_feeds(dataset, 5), expected, atol=1e-6)
    assert not caplog.records


def test_recipe_given_wins(folder, tmp_path):
    (folder / "recipe.toml").write_text("nonsense = 1")
    assert all_feeds(open_set(folder, [IMAGE_SPEC], recipe=RAW), 5).max() > 200
    (tmp_path / "other.toml").write_text("scale = 1")
    assert all_feeds(open_set(folder, [IMAGE_SPEC], recipe=tmp_path / "other.toml"), 5).max() > 200
    with pytest.raises(RecipeError, match="unknown key 'nonsense'"):
        open_set(folder, [IMAGE_SPEC])


def test_defaults_are_told(folder, caplog):
    dataset = open_set(folder, [IMAGE_SPEC])
    assert "no recipe.toml" in dataset.warnings[0]
    assert "centre crop 8" in dataset.warnings[0]
    assert "[0.485, 0.456, 0.406]" in dataset.warnings[0]
    assert dataset.warnings[0] in caplog.text


def test_a_few_unreadable_files_are_skipped_by_name(folder, caplog):
    (folder / "1/00.png").write_text("not an image")
    dataset = open_set(folder, [IMAGE_SPEC], recipe=RAW)
    assert len(dataset) == 12
    assert dataset.skipped == (("1/00.png", "not an image, or damaged at its start"),)
    assert "1/00.png" not in dataset.files
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "1/00.png" in record.message
    assert len(all_feeds(dataset, 5)) == 12


def test_more_than_a_tenth_unreadable(folder):
    for name in ("a", "b"):
        (folder / f"{name}.png").write_text("not an image")
    with pytest.raises(
        ImageSetError, match=r"2 of 14 images cannot be used .*10%.* a\.png: not an"
    ):
        open_set(folder, [IMAGE_SPEC], recipe=RAW)


def test_none_readable_and_none_there(tmp_path):
    with pytest.raises(ImageSetError, match=r"holds no images .*\.jpg"):
        open_set(tmp_path, [IMAGE_SPEC])
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageSetError, match="1 of 1 images cannot be used"):
        open_set(tmp_path, [IMAGE_SPEC])


def test_shapes_that_do_not_fit_name_both(folder):
    with pytest.raises(ImageSetError) as raised:
        open_set(folder, [spec("N", 3, 16, 16)], recipe=RAW)
    assert "N x 3 x 8 x 8" in str(raised.value)
    assert "'x' is N x 3 x 16 x 16" in str(raised.value)
    with pytest.raises(ImageSetError, match=r"N x 3 x 8 x 8, but .* N x 1 x 8 x 8"):
        open_set(folder, [spec("N", 1, 8, 8)], recipe=RAW)
    with pytest.raises(ImageSetError, match="N x 3 x 8 x 8, but"):
        open_set(folder, [spec("N", 8, 8, 3)], recipe=RAW)
    nhwc = open_set(folder, [spec("N", 8, 8, 3)], recipe=Recipe(layout="nhwc"))
    assert all_feeds(nhwc, 5).shape == (12, 8, 8, 3)


def test_images_of_different_sizes(folder):
    save_images(folder, ["wide.png"], size=(9, 8))
    with pytest.raises(ImageSetError, match=r"00\.png is 3 x 8 x 8, wide\.png is 3 x 8 x 9; give"):
        open_set(folder, [spec("N", 3, "H", "W")], recipe=RAW)
    assert len(open_set(folder, [spec("N", 3, "H", "W")], recipe=Recipe(crop=8))) == 13


def test_several_inputs_want_npz(folder):
    with pytest.raises(ImageSetError, match=r"2 \(a, b\); pass a \.npz"):
        open_set(folder, [spec("N", 2, name="a"), spec("N", 2, name="b")])


def test_8_bit_and_half_inputs(folder):
    plain = all_feeds(open_set(folder, [IMAGE_SPEC], recipe=RAW), 12)
    whole = all_feeds(open_set(folder, [spec("N", 3, 8, 8, dtype="uint8")]), 12)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, plain)
    half = all_feeds(open_set(folder, [spec("N", 3, 8, 8, dtype="float16")], recipe=RAW), 12)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, plain)


def test_the_cache_changes_nothing_but_time(folder, monkeypatch):
    cached = all_feeds(open_set(folder, [IMAGE_SPEC], recipe=RAW), 5)
    monkeypatch.setattr(samples_module, "CACHE_BYTES", 5 * 8 * 8 * 3)
    monkeypatch.setattr(samples_module, "_CHUNK", 4)
    dataset = open_set(folder, [IMAGE_SPEC], recipe=RAW)
    np.testing.assert_array_equal(all_feeds(dataset, 5), cached)
    last = folder / dataset.files[-1]
    last.unlink()
    with pytest.raises(ImageSetError, match="could be read when the set was opened"):
        list(dataset.batches(5))


class TestLabels:
    def write(self, folder, files, name="labels.csv"):
        rows = [f"{file},{index}" for index, file in enumerate(files)]
        (folder / name).write_text("\n".join(["file,label", *rows]))
        return folder / name

    def test_found_in_the_folder(self, folder):
        files = open_set(folder, [IMAGE_SPEC], recipe=RAW).files
        self.write(folder, files)
        dataset = open_set(folder, [IMAGE_SPEC], recipe=RAW)
        assert dataset.labels.tolist() == list(range(12))
        other = self.write(folder, files[::-1], "other.csv")
        dataset = open_set(folder, [IMAGE_SPEC], recipe=RAW, labels=other)
        assert dataset.labels.tolist() == list(range(12))[::-1]

    def test_skipped_files_lose_their_label(self, folder):
        files = open_set(folder, [IMAGE_SPEC], recipe=RAW).files
        self.write(folder, files)
        (folder / files[0]).write_text("damaged")
        expected = list(range(1, 12))
        bad = folder / "recipe.toml"
        bad.write_text("scale = 1")
        with pytest.MonkeyPatch.context() as patch:
            # one of twelve is under a tenth only for this test's sake
            patch.setattr("onnx_esn.calibration.image_set.MAX_UNREADABLE", 0.2)
            assert open_set(folder, [IMAGE_SPEC]).labels.tolist() == expected
            for labels in (np.arange(12), np.arange(1, 12)):
                assert open_set(folder, [IMAGE_SPEC], labels=labels).labels.tolist() == expected

    def test_errors_reach_the_caller(self, folder):
        with pytest.raises(LabelsError, match=r"none\.csv: cannot be read"):
            open_set(folder, [IMAGE_SPEC], recipe=RAW, labels=folder / "none.csv")
        with pytest.raises(LabelsError, match="12 samples need"):
            open_set(folder, [IMAGE_SPEC], recipe=RAW, labels=np.arange(3))

    def test_given_for_an_open_set(self, folder):
        dataset = open_set(folder, [IMAGE_SPEC], recipe=RAW)
        path = self.write(folder, dataset.files, "late.csv")
        again = open_set(dataset, [IMAGE_SPEC], labels=path)
        assert again.labels.tolist() == list(range(12))
        assert dataset.labels is None
