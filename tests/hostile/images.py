"""Hostile sets of images and tensors, one for each way in which a folder can be wrong on purpose.

Each function gets an empty folder and returns what goes to --images.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SETS: dict[str, tuple[Callable[[Path], Path], int, str]] = {}
"""By name: what makes it, the exit code of `recalibrate`, and part of what that says."""

SIDE = 6


def image_set(code: int = 0, says: str = ""):
    def register(build):
        assert build.__name__ not in SETS
        SETS[build.__name__] = build, code, says
        return build

    return register


def pixels(seed=0, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def good(folder: Path, count=20) -> Path:
    """A folder of sound images with a recipe that the model takes."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(f"resize = [{SIDE}, {SIDE}]\n", encoding="utf-8")
    for i in range(count):
        Image.fromarray(pixels(i)).save(folder / f"{i:03}.png")
    return folder


def png(width, height, data=b""):
    """A PNG that declares a size, and has what data it likes."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(data)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@image_set(says="limit of")
def a_bomb_among_others(folder):
    good(folder)
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    return folder


@image_set(2, "limit of")
def bombs_only(folder):
    good(folder, 0)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(2**31 - 1, 2**31 - 1))
    return folder


@image_set()
def below_the_limit(folder):
    """80 million pixels of one colour in a few kilobytes: large, and allowed."""
    good(folder)
    Image.new("L", (10_000, 8_000)).save(folder / "large.png")
    return folder


@image_set(says="skipped")
def truncated_image(folder):
    good(folder)
    path = folder / "000.png"
    path.write_bytes(path.read_bytes()[:-60])
    return folder


@image_set(says="skipped")
def zero_sized(folder):
    good(folder)
    (folder / "empty.png").write_bytes(b"")
    (folder / "none.png").write_bytes(png(0, 0))
    return folder


@image_set(says="skipped")
def wrong_content(folder):
    good(folder)
    (folder / "text.jpg").write_text("not a picture", encoding="utf-8")
    (folder / "svg.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    return folder


@image_set()
def wrong_extension(folder):
    """A PNG called .jpg is a PNG."""
    good(folder)
    (folder / "000.png").rename(folder / "000.jpg")
    return folder


@image_set(says="skipped")
def other_decoders(folder):
    """Only decoders of photographs may look at a file: no EPS, which would start a program."""
    good(folder)
    (folder / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n")
    return folder


@image_set()
def animated(folder):
    good(folder)
    frames = [Image.fromarray(pixels(i)) for i in range(5)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tiff", save_all=True, append_images=frames[1:])
    return folder


@image_set()
def every_mode(folder):
    good(folder)
    rgb = Image.fromarray(pixels())
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("LA").save(folder / "alpha.png")
    rgb.convert("1").save(folder / "bilevel.png")
    Image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    return folder


@image_set(says="skipped")
def links(folder):
    """Loops of folders, a file that is a link to itself, one to nowhere, one to a device."""
    good(folder)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "itself").symlink_to("itself")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "device.png").symlink_to("/dev/zero")
    return folder


@image_set(2, "folders")
def links_that_multiply(folder):
    """Thirty folders, each with two links to the next: a billion ways to the bottom."""
    good(folder)
    for i in range(30):
        level = folder / f"level{i}"
        level.mkdir()
        for way in ("left", "right"):
            (level / way).symlink_to(folder / f"level{i + 1}", target_is_directory=True)
    (folder / "level30").mkdir()
    return folder


@image_set()
def a_thousand_folders_deep(folder):
    good(folder)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return folder


@image_set(says="skipped")
def a_pipe_among_images(folder):
    good(folder)
    os.mkfifo(folder / "pipe.png")
    return folder


@image_set()
def names_of_all_kinds(folder):
    good(folder)
    for name in ("ä ö.png", "新しい.png", "new\nline.png", "\x1b[2J.png", "-o.png", "%s{}.png"):
        Image.fromarray(pixels()).save(folder / name)
    (folder / "000.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))
    return folder


@image_set(says="skipped")
def names_that_are_no_text(folder):
    good(folder)
    with open(os.fsencode(folder) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123
        file.write(b"nothing")
    return folder


@image_set(2, "holds no images")
def an_empty_folder(folder):
    folder.mkdir(exist_ok=True)
    return folder


@image_set(2, "cannot be used")
def unreadable_images(folder):
    good(folder, 0)
    for i in range(2000):
        (folder / f"{i}.png").write_bytes(b"x")
    return folder


# Recipes.


def _recipe(folder, text):
    good(folder)
    (folder / "recipe.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@image_set(2, "TOML")
def recipe_nested_without_end(folder):
    return _recipe(folder, "mean = " + "[" * 100_000)


@image_set(2, "TOML")
def recipe_of_bytes(folder):
    return _recipe(folder, os.urandom(1000) + b"\xff\x00")


@image_set(2, "recipe.toml")
def recipe_of_digits(folder):
    return _recipe(folder, "scale = 1" + "0" * 10_000)


@image_set(2, "scale")
def recipe_beyond_float(folder):
    return _recipe(folder, "resize = [6, 6]\nscale = 1e300\n")


@image_set(2, "std")
def recipe_below_float(folder):
    return _recipe(folder, "resize = [6, 6]\nstd = 1e-320\n")


@image_set(2, "mean")
def recipe_of_infinity(folder):
    return _recipe(folder, "resize = [6, 6]\nmean = [inf, nan, 0]\n")


@image_set(2, "over the limit")
def recipe_of_a_giant(folder):
    return _recipe(folder, "resize = [1000000, 1000000]\n")


@image_set(2, "over the limit")
def recipe_of_a_number_beyond_all(folder):
    return _recipe(folder, "resize = 99999999999999999999999\n")


@image_set(2, "unknown key")
def recipe_of_other_keys(folder):
    return _recipe(folder, "__class__ = 'x'\n")


# Ready tensors.


@image_set(2, "Python objects")
def pickled_array(folder):
    np.save(folder / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    return folder / "x.npy"


@image_set(2, "not a readable")
def pickle_for_an_array(folder):
    import pickle

    (folder / "x.npy").write_bytes(pickle.dumps({"x": [1, 2]}))
    return folder / "x.npy"


@image_set(2, "allow_pickle")
def pickled_archive(folder):
    np.savez(folder / "x.npz", x=np.array([{"a": 1}], object))
    return folder / "x.npz"


def _header(text):
    head = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


@image_set(2, "x.npy")
def array_that_declares_too_much(folder):
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3, 6, 6)}"
    (folder / "x.npy").write_bytes(_header(head) + bytes(100))
    return folder / "x.npy"


@image_set(2, "x.npy")
def array_of_a_strange_header(folder):
    (folder / "x.npy").write_bytes(_header("__import__('os').system('true')") + bytes(100))
    return folder / "x.npy"


def _archive(folder, content, name="x.npy"):
    path = folder / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, content)
    return path


@image_set(2, "x.npz")
def archive_that_declares_too_much(folder):
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 3, 6, 6)}"
    return _archive(folder, _header(head) + bytes(100))


@image_set(2, "x.npz")
def archive_that_is_a_bomb(folder):
    """Two gigabytes of zeros in two megabytes."""
    path = folder / "x.npz"
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (4971026, 3, 6, 6)}"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z,
        z.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(_header(head))
        block = bytes(1 << 24)
        for _ in range(128):
            file.write(block)
    return path


@image_set(2, "x.npz")
def archive_of_text(folder):
    return _archive(folder, b"hello", "x.txt")


@image_set(2, "x.npz")
def archive_cut_short(folder):
    path = folder / "x.npz"
    np.savez(path, x=np.zeros((20, 3, 6, 6), np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _array(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


@image_set(2, "shape")
def array_of_a_wrong_shape(folder):
    return _array(folder, np.zeros((20, 4, 6, 6), np.float32))


@image_set(2, "float32")
def array_of_a_wrong_type(folder):
    return _array(folder, np.zeros((20, 3, 6, 6), np.complex64))


@image_set(2, "NaN")
def array_with_nan(folder):
    x = np.zeros((20, 3, 6, 6), np.float32)
    x[7, 0, 0, 0] = np.nan
    return _array(folder, x)


@image_set(2, "no samples")
def array_of_nothing(folder):
    return _array(folder, np.zeros((0, 3, 6, 6), np.float32))


@image_set(2, "single number")
def array_of_one_number(folder):
    return _array(folder, np.float32(1))


@image_set(2, "x.npy")
def array_of_records(folder):
    return _array(folder, np.zeros(20, [("a", "f4"), ("b", "i8")]))


@image_set(2, "regular file")
def a_pipe_of_tensors(folder):
    os.mkfifo(folder / "x.npy")
    return folder / "x.npy"
