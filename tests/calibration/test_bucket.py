"""Sets in a bucket that speaks S3: the real client against a server on this machine."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import onnx_esn
from onnx_esn.calibration import open_set
from onnx_esn.calibration.set_fingerprint import fingerprint_set
from onnx_esn.errors import ImageSetError

from ..net import Net
from .tiny import IMAGE_SPEC

WANTED = "the S3 client and server are not installed (pip install s3fs 'moto[s3,server]')"
s3fs = pytest.importorskip("s3fs", reason=WANTED)
moto = pytest.importorskip("moto.server", reason=WANTED)
pytestmark = pytest.mark.filterwarnings("default:::botocore", "default:::aiobotocore")

KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
RECIPE = "resize = 10\ncrop = 8\nmean = 0.5\n"


@pytest.fixture(scope="module")
def server():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket that is empty, with keys for it in the environment."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("photos")
    yield files
    files.invalidate_cache()
    files.rm("photos", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def folder_of(root, count):
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / "set" / ("a b" if i % 2 else "deep/er") / f"ü{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8)).save(path)
    (root / "set" / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return root / "set"


def upload(files, folder):
    files.put(f"{folder}/", "photos/set/", recursive=True)
    return "s3://photos/set"


def test_a_folder_in_a_bucket_is_the_folder(bucket, tmp_path):
    """More objects than a listing has on one page."""
    folder = folder_of(tmp_path, 1_010)
    there, here = (open_set(source, [IMAGE_SPEC]) for source in (upload(bucket, folder), folder))
    assert len(there) == 1_010
    assert there.files == here.files
    assert fingerprint_set(there) == fingerprint_set(here)


def test_results_from_a_bucket_are_the_same_bytes(bucket, tmp_path):
    folder = folder_of(tmp_path, 12)
    net = Net(3, 8, 8)
    model = net.model(net.head(net.conv_bn_relu("x", 3, 4), 4))
    there, here = (
        onnx_esn.quantize(model, bits=3, images=source).model
        for source in (upload(bucket, folder), folder)
    )
    assert there.SerializeToString(deterministic=True) == here.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", ["photos/none", "none/set"])
def test_nothing_in_a_bucket(bucket, name):
    with pytest.raises(ImageSetError, match=rf"^s3://{name}: no such folder or file$"):
        open_set(f"s3://{name}", [IMAGE_SPEC])


def test_no_keys(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ImageSetError, match=r"^s3://photos/set: access was refused \(Unable to l"):
        open_set("s3://photos/set", [IMAGE_SPEC])
