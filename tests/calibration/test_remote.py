"""Sets by URL give the same samples as the same folder here, and say what went wrong."""

from __future__ import annotations

import functools
import http.server
import logging
import pickle
import shutil
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from onnx_esn.calibration import open_set, remote, samples
from onnx_esn.calibration.remote import RemotePath
from onnx_esn.calibration.set_fingerprint import fingerprint_set
from onnx_esn.errors import ImageSetError, LabelsError, RecipeError

from .tiny import IMAGE_SPEC, spec

fsspec = pytest.importorskip("fsspec", reason="the extra [remote] is not installed")

FILES = ("b.png", "a b/ü.png", "a b/c.PNG", "deep/er/d.png", ".hidden.png", ".git/e.png", "n.txt")
RECIPE = "resize = 10\ncrop = 8\nmean = 0.5\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with images, a recipe, labels, and what must be passed over."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (12, 14, 3), np.uint8)
        Image.fromarray(pixels).save(root / name, "png")
    (root / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    rows = ["file,label", "b.png,1", "ü.png,2", "c.PNG,3", "d.png,4"]
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


@pytest.fixture
def served(tmp_path):
    """The address of a web server of tmp_path that lists its folders; the requests that it got;
    and how often it is to fail at a path."""
    asked: list[str] = []
    broken: dict[str, int] = {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            path = self.path if self.path.endswith(("/", "l")) else f"{self.path}/"
            if broken.get(path, 0) > 0:
                broken[path] -= 1
                self.send_error(500)
            else:
                super().do_GET()

        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked, broken
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory():
    """A file system that is nowhere; empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def at_once(monkeypatch):
    """No pause between tries."""
    monkeypatch.setattr(remote, "PAUSE", 0.0)


def in_memory(memory, folder):
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/bucket/set/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return "memory://bucket/set"


def zipped(folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder.parent))
    return f"zip://set::{folder.with_suffix('.zip').as_uri()}"


def same(one, other):
    assert one.files == other.files
    assert one.name == other.name
    assert one.skipped == other.skipped
    assert np.array_equal(one.labels, other.labels)
    assert fingerprint_set(one) == fingerprint_set(other)


@pytest.mark.parametrize("kind", ["memory", "file", "zip", "trailing slash"])
def test_a_folder_by_url_is_the_folder(folder, memory, kind):
    here = open_set(folder, [IMAGE_SPEC])
    assert here.files == ("a b/c.PNG", "a b/ü.png", "b.png", "deep/er/d.png")
    url = {
        "memory": lambda: in_memory(memory, folder),
        "trailing slash": lambda: in_memory(memory, folder) + "/",
        "file": folder.as_uri,
        "zip": lambda: zipped(folder),
    }[kind]()
    same(open_set(url, [IMAGE_SPEC]), here)


def test_a_folder_of_a_web_server(folder, served):
    pytest.importorskip("aiohttp", reason="fsspec reads the web with it")
    address, asked, _ = served
    opened = open_set(f"{address}/set", [IMAGE_SPEC])
    same(opened, open_set(folder, [IMAGE_SPEC]))
    before = len(asked)
    assert sum(batch.count for batch in opened.batches(2)) == 4
    assert len(asked) == before, "decoded images are not fetched again"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("what", ["/set/", "/set/deep/", "/set/deep/er/", "/set/recipe.toml"])
@pytest.mark.parametrize("times", [2, 100])
def test_trouble_of_a_web_server_leaves_nothing_out(folder, served, what, times):
    pytest.importorskip("aiohttp", reason="fsspec reads the web with it")
    address, _, broken = served
    broken[what] = times
    if times > 2:
        with pytest.raises(ImageSetError, match=r"cannot be reached, tried 3 times \(500, "):
            open_set(f"{address}/set", [IMAGE_SPEC])
    else:
        same(open_set(f"{address}/set", [IMAGE_SPEC]), open_set(folder, [IMAGE_SPEC]))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ["set", "set.npy"])
def test_no_web_server(name):
    pytest.importorskip("aiohttp", reason="fsspec reads the web with it")
    expected = rf"^http://127\.0\.0\.1:1/{name}: cannot be reached, tried 3 times \(Cannot connect"
    with pytest.raises(ImageSetError, match=expected):
        open_set(f"http://127.0.0.1:1/{name}", [IMAGE_SPEC])


def test_nothing_on_a_web_server(folder, served):
    pytest.importorskip("aiohttp", reason="fsspec reads the web with it")
    address, *_ = served
    np.save(folder / "x.npy", np.ones((2, 3, 8, 8), np.float32))
    assert len(open_set(f"{address}/set/x.npy", [IMAGE_SPEC])) == 2
    (folder / "recipe.toml").unlink()
    open_set(f"{address}/set", [IMAGE_SPEC])
    for name in ("none", "none.npz"):
        with pytest.raises(ImageSetError, match=rf"/{name}: no such folder or file$"):
            open_set(f"{address}/{name}", [IMAGE_SPEC])


def test_what_memory_does_not_hold_is_fetched_once_all_the_same(folder, memory, monkeypatch):
    monkeypatch.setattr(samples, "CACHE_BYTES", 200)  # one image of 8 x 8 x 3
    url = in_memory(memory, folder)
    here = open_set(folder, [IMAGE_SPEC])
    there = open_set(url, [IMAGE_SPEC])
    memory.store.clear()
    same(there, here)


def test_tensors_recipe_and_labels_by_url(folder, memory, tmp_path):
    array = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)
    labels = np.arange(4)
    np.savez(tmp_path / "set.npz", x=array, y=np.arange(5))
    np.save(tmp_path / "set.npy", array)
    np.save(tmp_path / "labels.npy", labels)
    for name in ("set.npz", "set.npy", "labels.npy"):
        memory.pipe(f"/k/{name}", (tmp_path / name).read_bytes())
    for name in ("set.npz", "set.npy"):
        same(open_set(f"memory://k/{name}", [IMAGE_SPEC]), open_set(tmp_path / name, [IMAGE_SPEC]))
    (folder / "recipe.toml").rename(tmp_path / "r.toml")
    memory.pipe("/k/r.toml", (tmp_path / "r.toml").read_bytes())
    here = open_set(folder, [IMAGE_SPEC], recipe=tmp_path / "r.toml", labels=labels)
    options = {"recipe": "memory://k/r.toml", "labels": "memory://k/labels.npy"}
    same(open_set(folder, [IMAGE_SPEC], **options), here)


def test_errors_in_files_by_url_name_the_url(folder, memory):
    memory.pipe("/k/r.toml", b"reesize = 3\n")
    memory.pipe("/k/l.csv", b"file,label\nnone.png,1\n")
    memory.pipe("/k/x.npz", b"no archive")
    with pytest.raises(RecipeError, match=r"^memory://k/r\.toml: unknown key 'reesize'"):
        open_set(folder, [IMAGE_SPEC], recipe="memory://k/r.toml")
    with pytest.raises(LabelsError, match=r"^memory://k/l\.csv, line 2: 'none\.png'"):
        open_set(folder, [IMAGE_SPEC], labels="memory://k/l.csv")
    with pytest.raises(ImageSetError, match=r"^memory://k/x\.npz: is not a readable \.npz"):
        open_set("memory://k/x.npz", [IMAGE_SPEC])
    with pytest.raises(RecipeError, match=r"memory://k/none\.toml: cannot be read"):
        open_set(folder, [IMAGE_SPEC], recipe="memory://k/none.toml")


@pytest.mark.parametrize("url", ["memory://bucket/none", "memory://none", "memory://k/none.npz"])
def test_nothing_there(memory, url):
    with pytest.raises(ImageSetError, match=rf"^{url}: no such folder or file$"):
        open_set(url, [IMAGE_SPEC])


def test_a_bucket_that_is_not_there(memory, monkeypatch):
    def find(fs, root, withdirs):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(type(memory), "find", find)
    with pytest.raises(ImageSetError, match=r"^memory://none/set: no such folder or file$"):
        open_set("memory://none/set", [IMAGE_SPEC])


def test_an_empty_folder(memory):
    memory.pipe("/bucket/set/readme.txt", b"")
    with pytest.raises(ImageSetError, match="memory://bucket/set: holds no images"):
        open_set("memory://bucket/set", [IMAGE_SPEC])


def test_an_unknown_protocol():
    with pytest.raises(ImageSetError, match="foo://x: fsspec knows no such protocol"):
        open_set("foo://x", [IMAGE_SPEC])


def test_fsspec_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImageSetError, match=r"s3://b/k: needs fsspec: pip install 'onnx-esn\[re"):
        open_set("s3://b/k", [IMAGE_SPEC])


def test_the_package_of_a_protocol_is_not_installed(monkeypatch):
    def none(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", none)
    with pytest.raises(
        ImageSetError, match=r"^s3://b/k: Install s3fs to access S3: pip install s3"
    ):
        open_set("s3://b/k", [IMAGE_SPEC])


def test_a_url_that_was_made_a_path(tmp_path):
    from pathlib import Path

    with pytest.raises(ImageSetError, match="is a URL that was made a path; pass it as a text"):
        open_set(Path("s3://bucket/set"), [IMAGE_SPEC])


class Trouble:
    """Makes a method of the memory file system fail some times."""

    def __init__(self, monkeypatch, memory, method, error, times):
        self.left, self.calls = times, 0
        whole = getattr(type(memory), method)

        def fail(fs, *args, **kwargs):
            self.calls += 1
            if self.left:
                self.left -= 1
                raise error
            return whole(fs, *args, **kwargs)

        monkeypatch.setattr(type(memory), method, fail)


@pytest.mark.usefixtures("at_once")
def test_trouble_that_passes(folder, memory, monkeypatch, caplog):
    url = in_memory(memory, folder)
    Trouble(monkeypatch, memory, "cat_file", OSError("connection reset by peer"), 2)
    same(open_set(url, [IMAGE_SPEC]), open_set(folder, [IMAGE_SPEC]))
    assert caplog.text.count("connection reset by peer; tried again") == 1


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("method", ["cat_file", "find"])
def test_trouble_that_stays_is_no_damaged_image(folder, memory, monkeypatch, method):
    url = in_memory(memory, folder)
    Trouble(monkeypatch, memory, method, OSError("no route\nto host"), 1000)
    expected = r"^memory://bucket/set\S*( \S+)*: cannot be reached, tried 3 times \(no route\)$"
    with pytest.raises(ImageSetError, match=expected):
        open_set(url, [IMAGE_SPEC])


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("Access Denied"),
        type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"),
    ],
    ids=["denied", "no credentials"],
)
def test_credentials_are_not_tried_again(folder, memory, monkeypatch, error):
    url = in_memory(memory, folder)
    trouble = Trouble(monkeypatch, memory, "find", error, 1000)
    with pytest.raises(ImageSetError, match=rf"access was refused \({error}\); the credentials"):
        open_set(url, [IMAGE_SPEC])
    assert trouble.calls == 1


def test_no_secrets_in_messages():
    path = RemotePath("memory://user:secret@b/k?X-Signature=secret")
    assert "secret" not in str(path)
    assert "secret" not in str(path / "a.png")


def test_an_image_that_is_damaged_there_is_skipped(folder, memory, caplog):
    for i in range(12):
        shutil.copy(folder / "b.png", folder / f"more{i}.png")
    (folder / "labels.csv").unlink()
    (folder / "b.png").write_bytes(b"damaged")
    url = in_memory(memory, folder)
    with caplog.at_level(logging.WARNING):
        there = open_set(url, [IMAGE_SPEC])
    assert there.skipped == open_set(folder, [IMAGE_SPEC]).skipped
    assert caplog.messages[0].startswith(f"{url}/b.png: skipped: not an image")


def test_a_path_by_url_can_be_sent(memory):
    memory.pipe("/k/r.toml", b"text")
    assert pickle.loads(pickle.dumps(RemotePath("memory://k/r.toml"))).read_text() == "text"


def test_tensors_need_no_images(memory, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 4), np.float32))
    memory.pipe("/k/x.npy", (tmp_path / "x.npy").read_bytes())
    with pytest.raises(ImageSetError, match=r"memory://k/x\.npy: holds no samples"):
        open_set("memory://k/x.npy", [spec("N", 4)])
