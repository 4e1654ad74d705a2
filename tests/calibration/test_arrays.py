import numpy as np
import pytest

from onnx_esn.calibration import open_set
from onnx_esn.errors import ImageSetError, LabelsError, OptionError

from .tiny import all_feeds, spec

SPEC = spec("N", 3, 2, 2)
X = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)


def test_npy_is_read_as_it_is(tmp_path):
    np.save(tmp_path / "set.npy", X)
    dataset = open_set(str(tmp_path / "set.npy"), [SPEC])
    assert (dataset.name, len(dataset), dataset.labels) == ("set.npy", 5, None)
    assert (dataset.skipped, dataset.warnings, dataset.files) == ((), (), None)
    np.testing.assert_array_equal(all_feeds(dataset, 2), X)


def test_npz_by_input_name_or_x_with_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=np.arange(5))
    np.savez_compressed(tmp_path / "b.npz", input=X, other=1)
    dataset = open_set(tmp_path / "a.npz", [spec("N", 3, 2, 2, name="input")])
    np.testing.assert_array_equal(all_feeds(dataset, 3, "input"), X)
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4]
    dataset = open_set(tmp_path / "b.npz", [spec("N", 3, 2, 2, name="input")])
    np.testing.assert_array_equal(all_feeds(dataset, 3, "input"), X)


def test_arrays_in_memory():
    np.testing.assert_array_equal(all_feeds(open_set(X, [SPEC]), 2), X)
    np.testing.assert_array_equal(all_feeds(open_set({"x": X}, [SPEC]), 2), X)
    turned = np.asfortranarray(X)
    batch = next(open_set(turned, [SPEC]).batches(4))
    assert batch.feeds["x"].flags.c_contiguous


def test_several_inputs():
    inputs = [spec("N", 2, name="a"), spec("N", 3, name="y")]
    a, y = np.zeros((4, 2), np.float32), np.ones((4, 3), np.float32)
    dataset = open_set({"a": a, "y": y}, inputs)
    assert dataset.labels is None  # y is an input here
    batch = next(dataset.batches(3))
    assert {name: value.shape for name, value in batch.feeds.items()} == {"a": (3, 2), "y": (3, 3)}
    with pytest.raises(ImageSetError, match=r"no array named 'y' .* it holds a, x"):
        open_set({"a": a, "x": y}, inputs)
    with pytest.raises(ImageSetError, match="differ in their number of samples"):
        open_set({"a": a, "y": y[:3]}, inputs)
    with pytest.raises(ImageSetError, match=r"one array cannot feed the 2 model inputs \(a, y\)"):
        open_set(a, inputs)


def test_inputs_of_different_fixed_batches():
    inputs = [spec(2, 2, name="a"), spec(3, 2, name="b")]
    with pytest.raises(ImageSetError, match="different fixed batch sizes: 'a' 2, 'b' 3"):
        open_set(X, inputs)


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_floats_become_the_input_type(dtype):
    batch = next(open_set(X.astype(dtype), [SPEC]).batches(5))
    assert batch.feeds["x"].dtype == np.float32
    np.testing.assert_allclose(batch.feeds["x"], X, atol=2e-3)


def test_half_precision_input():
    batch = next(open_set(X, [spec("N", 3, 2, 2, dtype="float16")]).batches(5))
    assert batch.feeds["x"].dtype == np.float16


def test_integer_input():
    tokens = np.array([[1, 2], [3, 4]])
    batch = next(open_set(tokens, [spec("N", 2, dtype="uint8")]).batches(2))
    assert batch.feeds["x"].dtype == np.uint8
    with pytest.raises(ImageSetError, match=r"values 1 \.\. 300 do not fit .* type uint8"):
        open_set(np.array([[1, 300]]), [spec("N", 2, dtype="uint8")])
    with pytest.raises(ImageSetError, match=r"the array is float32, but .* is uint8"):
        open_set(np.ones((1, 2), np.float32), [spec("N", 2, dtype="uint8")])


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.complex64])
def test_integers_do_not_feed_a_float_input(dtype):
    with pytest.raises(ImageSetError, match="scale and normalize the values first"):
        open_set(X.astype(dtype) if dtype != np.complex64 else X + 0j, [SPEC])


@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "a NaN"), (-np.inf, "an infinity"), (1e300, "beyond the range of float32")],
)
def test_values_that_are_not_numbers_are_named_by_sample(value, what):
    bad = X.astype(np.float64)
    bad[3, 1, 0, 1] = value
    with pytest.raises(ImageSetError, match=f"sample 3 for 'x' holds .*{what}"):
        open_set(bad, [SPEC])


def test_large_arrays_are_checked_to_the_end(monkeypatch):
    monkeypatch.setattr("onnx_esn.calibration.arrays._CHECK_VALUES", 24)
    bad = X.copy()
    bad[4, 2, 1, 1] = np.nan
    with pytest.raises(ImageSetError, match="sample 4 "):
        open_set(bad, [SPEC])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 3, 4, 4), "N x 3 x 4 x 4, but the model input 'x' is N x 3 x 2 x 2$"),
        ((5, 2, 2, 3), "N x 2 x 2 x 3, but"),
        ((3, 2, 2), "N x 2 x 2, but .* the first axis must count samples"),
        ((0, 3, 2, 2), "holds no samples"),
        ((), "a single number"),
    ],
)
def test_shapes_that_do_not_fit(shape, expected):
    with pytest.raises(ImageSetError, match=expected):
        open_set(np.zeros(shape, np.float32), [SPEC])


def test_free_dimensions():
    for free in (spec(None, 3, "H", None), spec(1, 3, 2, 2), spec()):
        assert len(open_set(X, [free])) == 5


def test_damaged_and_dangerous_files(tmp_path):
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "short.npy", X)
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-9])
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    np.save(tmp_path / "plain", X)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    for name in (
        "plain.npz",
        "junk.npy",
        "junk.npz",
        "empty.npy",
        "short.npy",
        "object.npy",
        "object.npz",
    ):
        with pytest.raises(ImageSetError, match=f"{name}: is not a readable"):
            open_set(tmp_path / name, [SPEC])


def test_what_is_not_a_set(tmp_path):
    with pytest.raises(ImageSetError, match="no such folder or file"):
        open_set(tmp_path / "none", [SPEC])
    (tmp_path / "a.txt").touch()
    with pytest.raises(ImageSetError, match="neither a folder of images nor"):
        open_set(tmp_path / "a.txt", [SPEC])
    with pytest.raises(ImageSetError, match="a list is not a path"):
        open_set(["a.png"], [SPEC])
    with pytest.raises(ImageSetError, match="no inputs"):
        open_set(X, [])


def test_options_of_image_folders_are_refused(tmp_path):
    with pytest.raises(OptionError, match="folder of images only"):
        open_set(X, [SPEC], recipe="recipe.toml")
    with pytest.raises(LabelsError, match="tensors have no file names"):
        open_set(X, [SPEC], labels="labels.csv")


def test_labels_from_an_array_or_a_file(tmp_path):
    np.save(tmp_path / "y.npy", np.arange(5, dtype=np.int32))
    for labels in (np.arange(5), tmp_path / "y.npy"):
        assert open_set(X, [SPEC], labels=labels).labels.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(LabelsError, match="5 samples need"):
        open_set({"x": X, "y": np.arange(4)}, [SPEC])
    with pytest.raises(LabelsError, match="no such folder or file"):
        open_set(X, [SPEC], labels=tmp_path / "none.npy")


def test_of_many_inputs_a_few_are_named(tmp_path):
    specs = [spec("N", 3, name=f"x{i}") for i in range(1000)]
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    with pytest.raises(ImageSetError, match=r"inputs \(x0, .*, x7 and 992 more\); pass"):
        open_set(tmp_path / "x.npy", specs)
