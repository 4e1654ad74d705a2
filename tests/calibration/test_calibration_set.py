import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.calibration import open_set
from onnx_esn.calibration.calibration_set import spread
from onnx_esn.errors import ImageSetError, OptionError

from .tiny import all_feeds, spec


def numbered(total, batch="N"):
    return open_set(
        {"x": np.arange(total, dtype=np.float32)[:, None], "y": np.arange(total)}, [spec(batch, 1)]
    )


def values(dataset, size=3):
    return all_feeds(dataset, size).ravel().tolist()


@given(total=st.integers(1, 40), size=st.integers(1, 50))
def test_any_batch_size_gives_the_same_samples(total, size):
    batches = list(numbered(total).batches(size))
    joined = np.concatenate([batch.feeds["x"] for batch in batches])
    assert joined.ravel().tolist() == list(range(total))
    assert all(batch.count == len(batch.feeds["x"]) for batch in batches)
    assert {batch.count for batch in batches[:-1]} <= {size}


@given(total=st.integers(1, 40), size=st.integers(1, 50), fixed=st.integers(1, 9))
def test_a_fixed_batch_is_filled_with_the_last_sample(total, size, fixed):
    dataset = numbered(total, batch=fixed)
    assert dataset.fixed_batch == fixed
    batches = list(dataset.batches(size))
    assert all(batch.feeds["x"].shape == (fixed, 1) for batch in batches)
    assert sum(batch.count for batch in batches) == total
    padding = batches[-1].feeds["x"][batches[-1].count :]
    assert (padding == total - 1).all()
    assert values(dataset, size) == list(range(total))


@given(st.integers(1, 300), st.data())
def test_spread_takes_one_of_each_stretch(total, data):
    count = data.draw(st.integers(1, total))
    picked = spread(total, count)
    assert len(picked) == count
    for index, place in enumerate(picked):
        assert index * total // count <= place < (index + 1) * total // count


def test_a_pass_can_be_repeated_and_interrupted():
    dataset = numbered(7)
    next(dataset.batches(2))
    assert values(dataset) == values(dataset) == list(range(7))


def test_split_is_a_partition_and_always_the_same():
    first = [values(part) for part in numbered(100).split(0.2)]
    second = [values(part) for part in numbered(100).split(0.2)]
    assert first == second
    rest, held = first
    assert (len(rest), len(held)) == (80, 20)
    assert sorted(rest + held) == list(range(100))
    # evenly: every tenth of the set gives two to the held-out part
    assert np.histogram(held, bins=10, range=(0, 100))[0].tolist() == [2] * 10


def test_split_does_not_step_with_the_classes():
    classes = {int(value) % 10 for value in values(numbered(1000).split(0.1)[1])}
    assert len(classes) == 10


@pytest.mark.parametrize(("total", "part", "held"), [(2, 0.01, 1), (2, 0.99, 1), (5, 0.99, 4)])
def test_no_half_is_empty(total, part, held):
    rest, kept = numbered(total).split(part)
    assert (len(rest), len(kept)) == (total - held, held)


def test_split_refuses():
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(OptionError, match="between 0 and 1"):
            numbered(5).split(fraction)
    with pytest.raises(ImageSetError, match="cannot be split"):
        numbered(1).split(0.5)


def test_parts_of_parts_keep_their_labels():
    rest, held = numbered(50).split(0.3)
    for part in (rest, held, rest.take(7), held.subset([3, 0])):
        assert part.labels.tolist() == values(part)
    assert len(rest.take(7)) == 7


def test_take_and_subset():
    dataset = numbered(9)
    assert values(dataset.take(100)) == list(range(9))
    assert values(dataset.subset(np.array([5, 1]))) == [5, 1]
    with pytest.raises(OptionError, match="at least 1"):
        dataset.take(0)
    with pytest.raises(ImageSetError, match="empty part"):
        dataset.subset([])
    for index in (9, -1):
        with pytest.raises(ImageSetError, match="outside its 9 samples"):
            dataset.subset([index])


def test_batch_size_is_checked_at_the_call():
    with pytest.raises(OptionError, match="batch size 0"):
        numbered(3).batches(0)


class TestAnotherModel:
    def test_single_input_of_another_name_type_and_batch(self):
        part = numbered(9).subset([4, 5, 6])
        other = open_set(part, [spec(2, 1, name="input", dtype="float16")])
        batches = list(other.batches(8))
        assert [batch.count for batch in batches] == [2, 1]
        assert batches[0].feeds["input"].dtype == np.float16
        assert all_feeds(other, 8, "input").ravel().tolist() == [4, 5, 6]
        assert other.labels.tolist() == [4, 5, 6]
        again = open_set(other, [spec("N", 1)])
        assert values(again) == [4, 5, 6]

    def test_shape_that_does_not_fit(self):
        with pytest.raises(ImageSetError, match="N x 1, but the model input 'x' is N x 2"):
            open_set(numbered(9), [spec("N", 2)])

    def test_value_too_large_for_the_other_type(self):
        wide = open_set(np.full((2, 1), 1e5, np.float32), [spec("N", 1)])
        narrow = open_set(wide, [spec("N", 1, dtype="float16")])
        with pytest.raises(ImageSetError, match=r"up to 1e\+05 are too large .* float16"):
            next(narrow.batches(2))

    def test_inputs_by_name(self):
        arrays = {"a": np.zeros((3, 1), np.float32), "b": np.ones((3, 2), np.float32)}
        both = open_set(arrays, [spec("N", 1, name="a"), spec("N", 2, name="b")])
        only = open_set(both, [spec("N", 2, name="b")])
        assert list(next(only.batches(3)).feeds) == ["b"]
        with pytest.raises(ImageSetError, match=r"no samples for the model input 'c' .* a, b"):
            open_set(both, [spec("N", 1, name="c"), spec("N", 2, name="b")])
