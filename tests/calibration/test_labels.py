import numpy as np
import pytest

from onnx_esn.calibration.labels import check_labels, load_labels
from onnx_esn.errors import LabelsError

FILES = ["a/1.png", "a/2.png", "b/3.png"]


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_order_of_rows_and_columns_does_not_matter(tmp_path):
    path = write(tmp_path, "label,note,file\n7,x,b/3.png\n\n5,,a/1.png\n6,,a/2.png\n")
    labels = load_labels(path, FILES)
    assert labels.dtype == np.int64
    assert labels.tolist() == [5, 6, 7]


def test_spreadsheet_habits(tmp_path):
    path = write(tmp_path, "File, Label\r\n.\\a\\1.png,5\r\na/2.png,6\r\n3.png,7", "utf-8-sig")
    assert load_labels(path, FILES).tolist() == [5, 6, 7]


def test_longer_paths_match_by_their_end(tmp_path):
    path = write(tmp_path, "file,label\nset/a/1.png,5\n2.png,6\nset/b/3.png,7\n")
    assert load_labels(path, FILES).tolist() == [5, 6, 7]


def test_rows_of_skipped_files_are_passed_over(tmp_path):
    path = write(tmp_path, "file,label\na/1.png,5\na/2.png,6\nb/3.png,7\n")
    assert load_labels(path, ["a/1.png", "b/3.png"], ["a/2.png"]).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: the header must name the columns file,label; it is ''"),
        ("name,class\n", "line 1: the header must name .* it is 'name,class'"),
        ("file,label\na/1.png\n", "line 2: needs a file and a label"),
        ("file,label\na/1.png,cat\n", "line 2: label 'cat' is not a whole number"),
        ("file,label\na/1.png,1.0\n", "line 2: label '1.0' is not"),
        ("file,label\na/1.png,-1\n", "line 2: label '-1' is not"),
        ("file,label\na/1.png,²\n", "line 2: label '²' is not"),
        ("file,label\na/1.png,99999999999999999999\n", "line 2: label '9+' is not"),
        ("file,label\na/1.png,1\n\nc/1.png,1\n", "line 4: 'c/1.png' is not an image of the set"),
        ("file,label\na/1.png,1\n1.png,1\n", "line 3: '1.png' already has a label in line 2"),
        ("file,label\na/1.png,1\n", "2 of 3 images have no label, first 'a/2.png'"),
        ('file,label\n"a/1.png,1\n', "is not a CSV file"),
    ],
)
def test_wrong_files_are_told_by_line(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(LabelsError, match=expected) as raised:
        load_labels(path, FILES)
    assert str(path) in str(raised.value)


def test_ambiguous_name(tmp_path):
    path = write(tmp_path, "file,label\n1.png,1\n")
    with pytest.raises(LabelsError, match=r"line 2: '1\.png' could be 'a/1\.png' or 'b/1\.png'"):
        load_labels(path, ["a/1.png", "b/1.png"])


def test_unreadable(tmp_path):
    with pytest.raises(LabelsError, match="cannot be read"):
        load_labels(tmp_path / "none.csv", FILES)
    with pytest.raises(LabelsError, match="not a CSV file in UTF-8"):
        load_labels(write(tmp_path, "file,label\nä.png,1", "latin-1"), FILES)


def test_arrays():
    assert check_labels(np.array([[1], [2]], np.uint8), 2, "here").tolist() == [1, 2]
    assert check_labels([3, 4], 2, "here").dtype == np.int64
    for bad, expected in (
        (np.zeros((2, 10)), r"here: labels have the shape \(2, 10\); 2 samples need \(2,\)"),
        (np.array([1, 2, 3]), "have the shape"),
        (np.array([0.5, 1]), "type float64"),
        (np.array([-1, 1]), "is not a class index"),
        (np.array([2**63, 1], np.uint64), "is not a class index"),
    ):
        with pytest.raises(LabelsError, match=expected):
            check_labels(bad, 2, "here")
