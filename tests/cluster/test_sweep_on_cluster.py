"""A sweep on a cluster writes the bytes that it writes here, whatever dies meanwhile."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnx_esn
from onnx_esn.calibration import input_specs, open_set
from onnx_esn.calibration.set_fingerprint import fingerprint_set
from onnx_esn.cluster.image_parcel import ImageParcel
from onnx_esn.cluster.payload import parcel
from onnx_esn.errors import OperationError, OptionError
from onnx_esn.passes.inspecting.esn_metrics import measure_esn
from onnx_esn.search import elsewhere
from tests.net import Net

from .killing import KilledAt, slow_compress

pytest.importorskip("distributed", reason="the extra [cluster] is not installed")

ROOT = Path(__file__).parents[2]
TARGETS = (6.0, 5.0, 4.0, 3.0)


@functools.cache
def model():
    net = Net(3, 16, 16, seed=4)
    x = net.op("Relu", net.conv("x", 3, 8))
    x = net.op("Relu", net.conv(x, 8, 8))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    return net.model(net.gemm(x, 8, 5))


@pytest.fixture
def images(tmp_path):
    """A folder of 24 images with a recipe."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "recipe.toml").write_text("mean = 0.5\n", encoding="utf-8")
    return folder


def sweep(images, out, **options):
    wanted = {"targets": TARGETS, "methods": ("nearest",), "save_models": True, **options}
    return onnx_esn.sweep(model(), images, out, **wanted)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def here(images, tmp_path):
    """What the sweep of this process writes."""
    sweep(images, tmp_path / "here")
    found = contents(tmp_path / "here")
    assert len(found) == 2 + 2 * len(TARGETS)
    return found


def test_methods_give_the_same_bytes(images, address, tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_esn.passes.layerwise.shards.SHARD", 4)
    options = {"methods": ("nearest", "joint"), "targets": (5.0, 3.0)}
    seen, summed = [], []
    whole = elsewhere._spread

    def spread(cluster, sent, task, data, shards):
        summed.extend(shards)
        return whole(cluster, sent, task, data, shards)

    monkeypatch.setattr(elsewhere, "_spread", spread)
    here = sweep(images, tmp_path / "here", **options)
    there = sweep(
        images, tmp_path / "there", scheduler=address, progress=lambda *x: seen.append(x), **options
    )
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert there == here
    assert seen == [(i, 4) for i in range(5)]
    # Of 24 images a fifth is held out; of each there are four views. The workers themselves would
    # take all for one shard.
    assert summed == [range(i, i + 4) for i in range(0, 4 * 19, 4)]


@pytest.mark.slow
def test_a_grid_gives_the_same_bytes(images, address, tmp_path):
    options = {"ratios": (0.0, 0.25), "bits": (3, 4), "targets": None, "methods": None}
    sweep(images, tmp_path / "here", **options)
    sweep(images, tmp_path / "there", scheduler=address, **options)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_worker_is_killed_half_way(images, here, address, tmp_path, caplog):
    macs = measure_esn(model()).macs
    killing = KilledAt(tmp_path, (TARGETS[1] * macs, TARGETS[2] * macs))
    there = sweep(images, tmp_path / "there", scheduler=address, compress=killing)
    assert len(list(tmp_path.glob("*.died"))) == 2
    assert caplog.text.count("died; what it was at goes to another one") == 2
    assert there.computed == len(TARGETS)
    assert contents(tmp_path / "there") == here


@pytest.mark.slow
def test_a_point_that_kills_every_worker_fails_alone(images, here, address, tmp_path):
    killing = KilledAt(tmp_path, (TARGETS[1] * measure_esn(model()).macs,), always=True)
    there = sweep(images, tmp_path / "there", scheduler=address, compress=killing)
    reasons = [point.reason for point in there.points]
    assert reasons[1].startswith("3 workers died of it: tcp://")
    assert [bool(reason) for reason in reasons] == [False, True, False, False]
    again = sweep(images, tmp_path / "there", scheduler=address)
    assert again.computed == 1
    assert contents(tmp_path / "there") == here


def test_the_client_is_killed_half_way(images, here, address, tmp_path):
    out = tmp_path / "there"
    onnx.save(model(), tmp_path / "model.onnx")
    program = (
        "import onnx, onnx_esn\n"
        "from tests.cluster.killing import slow_compress\n"
        f"onnx_esn.sweep(onnx.load({str(tmp_path / 'model.onnx')!r}), {str(images)!r}, "
        f"{str(out)!r}, targets={TARGETS}, methods=('nearest',), save_models=True, "
        f"scheduler={address!r}, compress=slow_compress)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    points = out / "points"
    try:
        while not (points.is_dir() and any(points.glob("*.json"))):
            assert client.poll() is None
            time.sleep(0.01)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    left = len(TARGETS) - len(list(points.glob("*.json")))
    assert left > 0
    assert not (out / "sweep.json").exists()
    there = sweep(images, out, scheduler=address, compress=slow_compress)
    assert there.computed == left
    assert contents(out) == here


def test_a_wrong_address_is_told_before_any_work(tmp_path):
    with pytest.raises(OperationError, match="no Dask scheduler answers"):
        sweep(tmp_path / "none", tmp_path / "out", scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_latency_is_refused(images, tmp_path):
    with pytest.raises(OptionError, match="latency speaks of one machine"):
        sweep(images, tmp_path / "out", scheduler="tcp://127.0.0.1:1", latency=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_line(images, here, address, tmp_path):
    onnx.save(model(), tmp_path / "model.onnx")
    command = ["sweep", str(tmp_path / "model.onnx"), "--images", str(images), "--targets", "5,3"]
    command += ["--methods", "nearest", "--json", "-o"]

    def run(out, *more):
        return subprocess.run(
            [sys.executable, "-m", "onnx_esn", *command, str(tmp_path / out), *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    one, other = run("a"), run("b", "--scheduler", address)
    assert one.returncode == other.returncode == 0, one.stderr + other.stderr
    assert one.stdout == other.stdout
    assert json.loads(one.stdout)["schema"] == "onnx-esn/sweep/2"
    assert one.stderr == other.stderr
    bad = run("c", "--scheduler", "nonsense")
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: scheduler 'nonsense' is not an address such as tcp://")
    assert bad.stderr.count("\n") == 1


class TestImageParcel:
    """A set reaches a worker as it is, in one way or the other."""

    @pytest.fixture
    def opened(self, images):
        labels = np.arange(24) % 5
        return open_set(images, input_specs(model()), labels=labels)

    def received(self, parts):
        sent = ImageParcel(parts, fingerprint_set(parts))
        return sent.build([sent.keep(part) for part in sent.parts()])

    def same(self, one, other):
        assert fingerprint_set(one) == fingerprint_set(other)
        for name in ("name", "files", "skipped", "warnings", "inputs"):
            assert getattr(one, name) == getattr(other, name)

    def test_sent(self, opened):
        self.same(self.received(opened), opened)
        part = opened.subset([20, 3, 3, 7])
        self.same(self.received(part), part)

    def test_sent_tensors(self):
        array = np.random.default_rng(0).normal(size=(150, 3, 16, 16)).astype(np.float32)
        opened = open_set(array, input_specs(model()))
        self.same(self.received(opened), opened)
        large = open_set(np.tile(array, (1, 1, 8, 8)), [replace(opened.inputs[0], shape=None)])
        self.same(self.received(large), large)

    def test_read_where_it_is(self, opened):
        parts = ImageParcel(opened, fingerprint_set(opened))
        self.same(parts.fetch(), opened)
        part = opened.subset([20, 3, 3, 7])
        self.same(ImageParcel(part, fingerprint_set(part)).fetch(), part)

    def test_other_images_there(self, opened, images):
        sent = ImageParcel(opened, fingerprint_set(opened))
        (images / "0.png").rename(images / "z.png")
        with pytest.raises(onnx_esn.errors.ImageSetError, match="holds other images there"):
            sent.fetch()

    def test_what_is_nowhere_is_sent(self):
        opened = open_set(np.zeros((2, 3, 16, 16), np.float32), input_specs(model()))
        assert ImageParcel(opened, "").fetch is None

    def test_the_key_speaks_of_content_and_names(self, opened):
        def key(images):
            return ImageParcel(images, fingerprint_set(images)).key

        again = open_set(opened.origin.place, opened.inputs, labels=opened.labels)
        assert key(again) == key(opened)
        again.name = "other"
        assert key(again) != key(opened)
        assert key(opened.subset(range(23))) != key(opened)

    def test_a_thing_has_a_key_of_its_content(self):
        assert parcel((1, "a")).key == parcel((1, "a")).key != parcel((1, "b")).key
