"""Hostile sets of images and tensors: used without what is unusable, or refused in one line."""

from __future__ import annotations

import subprocess
import time

import pytest
from PIL import Image

from onnx_esn.calibration.image_files import find_images
from tests.hostile.images import SETS, good, pixels
from tests.hostile.runs import Runner
from tests.hostile.verbs import Bench

SLOW = {
    "archive_that_is_a_bomb",
    "below_the_limit",
    "links_that_multiply",
    "a_thousand_folders_deep",
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("worker")) as started:
        yield started


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in SETS]
)
def test_sets(runner, tmp_path, name):
    build, code, says = SETS[name]
    folder = tmp_path / "set"
    folder.mkdir()
    try:
        images = build(folder)
        bench = Bench(tmp_path)
        arguments = ["recalibrate", bench.sound, "-o", bench.output, "--images", images]
        ending = runner(*arguments, results=[bench.output])
        assert not ending.fault, ending.said[-2000:]
        assert ending.code == code, ending.said[-2000:]
        assert says in ending.said
        assert len(ending.said) < 6000
        assert ending.kilobytes < 700 * 1024
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)  # deeper than shutil goes


@pytest.mark.slow
def test_a_hundred_thousand_entries_are_listed_in_seconds(tmp_path):
    good(tmp_path, 3)
    for i in range(100_000):
        (tmp_path / f"{i}.txt").touch()
    start = time.perf_counter()
    found = find_images(tmp_path)
    seconds = time.perf_counter() - start
    assert found == ["000.png", "001.png", "002.png"]
    assert seconds < 20  # a tenth of a second where nothing else runs


@pytest.mark.slow
def test_a_hundred_thousand_images(runner, tmp_path):
    """Memory is that of the cache of pixels, whatever their number."""
    folder = good(tmp_path / "set", 1)
    content = (folder / "000.png").read_bytes()
    for i in range(100_000):
        (folder / f"i{i}.png").write_bytes(content)
    bench = Bench(tmp_path)
    arguments = ["recalibrate", bench.sound, "-o", bench.output, "--images", folder]
    ending = runner(*arguments, seconds=600)
    assert ending.code == 0, ending.said[-2000:]
    assert ending.kilobytes < 700 * 1024


@pytest.mark.slow
def test_pictures_at_the_limit_are_decoded_one_by_one(runner, tmp_path):
    """Eight pictures of 80 million pixels each: memory for one at a time."""
    folder = good(tmp_path / "set")
    for i in range(8):
        Image.new("RGB", (10_000, 8_000)).save(folder / f"large{i}.png")
    Image.fromarray(pixels()).save(folder / "z.png")
    bench = Bench(tmp_path)
    arguments = ["recalibrate", bench.sound, "-o", bench.output, "--images", folder]
    ending = runner(*arguments, seconds=300)
    assert ending.code == 0, ending.said[-2000:]
    assert ending.kilobytes < 1200 * 1024
