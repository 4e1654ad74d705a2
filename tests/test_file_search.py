"""Bytes are found wherever they lie in a file."""

import itertools
from pathlib import Path

import pytest

from onnx_esn import file_search
from onnx_esn.file_search import holds


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_it_finds_what_the_whole_has(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_search, "_CHUNK", chunk)
    path = tmp_path / "file"
    words = [bytes(w) for n in range(4) for w in itertools.product(b"ab", repeat=n)]
    for text in (b"", b"a", b"abbaabab", b"bbbbbbbba", b"aab" * 5):
        path.write_bytes(text)
        for word in words:
            assert holds(path, word) == (word in text), (text, word)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        holds(tmp_path / "none", b"x")
