import os

import pytest

from onnx_esn.calibration.image_files import find_images
from onnx_esn.errors import ImageSetError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_any_depth_any_case_sorted_without_hidden(tmp_path):
    touch(
        tmp_path,
        "b/c/2.JPG", "b/1.jpeg", "a.PNG", "z.tiff", "b.webp", "b/x.BmP", "Z.tif",
        ".hidden.png", ".git/1.png", "b/.thumb/1.png", "notes.txt", "recipe.toml", "1.npy",
    )  # fmt: skip
    expected = ["Z.tif", "a.PNG", "b.webp", "b/1.jpeg", "b/c/2.JPG", "b/x.BmP", "z.tiff"]
    assert find_images(tmp_path) == expected


def test_listing_order_does_not_matter(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{folder}/{file}.png" for folder in "abc" for file in "xyz"))
    expected = find_images(tmp_path)
    real = os.scandir

    class Backwards:
        def __init__(self, folder):
            with real(folder) as listing:
                self.entries = sorted(listing, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_images(tmp_path) == expected


def test_links(tmp_path):
    touch(tmp_path, "set/sub/1.png", "elsewhere/2.png")
    (tmp_path / "set/sub/loop").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set/far").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert find_images(tmp_path / "set") == ["far/2.png", "gone.png", "sub/1.png"]


def test_a_folder_may_look_like_an_image(tmp_path):
    touch(tmp_path, "folder.png/1.png")
    assert find_images(tmp_path) == ["folder.png/1.png"]


def test_unlistable(tmp_path):
    with pytest.raises(ImageSetError, match="cannot be listed"):
        find_images(tmp_path / "none")
