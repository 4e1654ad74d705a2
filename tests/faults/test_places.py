"""Where nothing can be written, or somebody else writes: one line, an exit code, nothing lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn import outside, shelf, targets, temporary
from onnx_esn.cli.places import check_folder
from onnx_esn.errors import OutputError
from onnx_esn.graph.model_file import load_model, save_model, write_text
from tests.test_cli import fails, run

from .commands import IMAGES, LONG, MODEL, arguments, everything, hidden, start
from .killed_writer import content, model

OLD = b"what was there before"


def ended(process, code):
    """The one line that a process ended with."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    (line,) = [x for x in errors.splitlines() if x.startswith("error")]
    return line


@pytest.mark.parametrize("more", [(), ("--external-data",)], ids=["one file", "two files"])
def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, more):
    """A limit on the size of files stands in for it: it needs no rights."""
    out = tmp_path / "m.onnx"
    out.write_bytes(OLD)
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    args = ["quantize", str(MODEL), "-o", str(out), "--bits", "3", *more]
    line = ended(start(args, tmp_path / "tmp", preexec_fn=small), 1)
    assert line == f"error: {out}: cannot be written: File too large"
    assert everything(tmp_path) == {"m.onnx": OLD}
    assert hidden(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_small_disk_that_is_full(tiny_disk):
    out = tiny_disk / "m.onnx"
    out.write_bytes(OLD)
    line = fails("quantize", MODEL, "-o", out, "--bits", 3, code=1)
    assert line == f"error: {out}: cannot be written: No space left on device"
    run("inspect", MODEL, "--ratios-out", tiny_disk / "r.json")
    assert sorted(everything(tiny_disk)) == ["m.onnx", "r.json"]
    assert out.read_bytes() == OLD


def test_no_room_for_temporary_files_is_one_line(tiny_disk, monkeypatch):
    monkeypatch.setattr(outside, "_LEAST", 1 << 14)
    monkeypatch.setattr(shelf, "LEAST", 1 << 14)
    monkeypatch.setattr(shelf, "process_folder", lambda: tiny_disk)
    tensor = onnx.helper.make_tensor("w", 1, [1, 1], [0.0])
    with pytest.raises(OutputError, match=r"cannot be written to .* set TMPDIR"):
        outside.put_values(tensor, np.ones((512, 512), np.float32), outside=True)
    with pytest.raises(OutputError, match="temporary files cannot be written"):
        shelf.Shelved(np.ones((512, 512), np.float32), outside=True)


@contextlib.contextmanager
def nobody():
    """Without the rights of root, which has the right to write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only():
    """A folder with a model that may be read only; not in `tmp_path`, which is root's alone."""
    folder = Path(tempfile.mkdtemp())
    shutil.copy(MODEL, folder / "m.onnx")
    (folder / "old.onnx").write_bytes(OLD)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_is_read_only_is_refused_before_the_work(tmp_path, read_only, monkeypatch):
    model = read_only / "m.onnx"
    # What is imported on first use may lie where only root may read.
    run("quantize", model, "-o", tmp_path / "m.onnx", "--bits", 3)
    worked = []
    monkeypatch.setattr(onnx_esn.verbs, "quantize", lambda *a, **k: worked.append(a))
    before = everything(read_only)
    for name in ("new.onnx", "old.onnx"):
        with nobody():
            line = fails("quantize", model, "-o", read_only / name, "--bits", 3, code=1)
        assert line == f"error: {read_only / name}: cannot be written: Permission denied"
    with nobody():
        with pytest.raises(OutputError, match="cannot be written; name another folder"):
            check_folder(read_only / "analysis")
        with pytest.raises(OutputError, match="Permission denied"):
            write_text("", read_only / "t.json")
    assert worked == []
    assert everything(read_only) == before


def test_an_output_that_is_no_file_is_refused_before_the_work(tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for verb in (("quantize", MODEL, "--bits", 3), ("prune", MODEL, "--ratio", 0.1)):
        assert "is a device or a pipe" in fails(*verb, "-o", pipe)
        assert "is a device or a pipe" in fails(*verb, "-o", os.devnull)
        assert "is a folder" in fails(*verb, "-o", folder)
        assert "its folder does not exist" in fails(*verb, "-o", tmp_path / "none" / "m.onnx")
    with pytest.raises(OutputError, match="is a device or a pipe"):
        write_text("", pipe)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_nothing_that_is_read_is_written(tmp_path):
    """By any name that leads to it."""
    source = tmp_path / "m.onnx"
    save_model(load_model(MODEL), source, external=True)
    (data,) = tmp_path.glob("m.onnx.*.data")
    link, hard = tmp_path / "link.onnx", tmp_path / "hard.onnx"
    link.symlink_to(source)
    hard.hardlink_to(source)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n")
    recipe = tmp_path / "recipe.toml"
    shutil.copy(IMAGES / "recipe.toml", recipe)
    before = everything(tmp_path)
    verb = ("recalibrate", source, "--images", IMAGES, "--reference", MODEL)
    for out in (source, link, hard, tmp_path / "." / "m.onnx"):
        assert "is the input itself" in fails(*verb, "-o", out)
    assert "has the weights of the input" in fails(*verb, "-o", data)
    verb = ("compress", MODEL, "--images", IMAGES, "--bits", 3)
    assert "is the labels that" in fails(*verb, "--labels", labels, "-o", labels)
    verb = ("quantize", MODEL, "--images", IMAGES, "--bits", 3)
    assert "is the recipe that" in fails(
        *verb, "--recipe", recipe, "--plan-out", recipe, "-o", tmp_path / "n.onnx"
    )
    verb = ("recalibrate", MODEL, "--images", IMAGES, "--reference", source)
    assert "is the reference that is read" in fails(*verb, "-o", source)
    assert everything(tmp_path) == before


def test_plots_do_not_go_among_the_images(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for place in (images, images / "new" / "folder"):
        assert "is within the images" in fails("sweep", MODEL, "--images", images, "-o", place)
        assert "is within the images" in fails("analyze", MODEL, "--images", images, "-o", place)
    assert list(images.iterdir()) == []


def test_a_link_that_is_written_is_replaced_not_followed(tmp_path):
    """What it leads to may be shared with others, as in a cache of models."""
    shared, link = tmp_path / "shared.json", tmp_path / "link.json"
    shared.write_bytes(OLD)
    link.symlink_to(shared)
    write_text("new", link)
    assert (shared.read_bytes(), link.read_text(), link.is_symlink()) == (OLD, "new", False)


def test_rights_that_somebody_gave_a_file_stay(tmp_path):
    path = tmp_path / "a.json"
    write_text("old", path)
    path.chmod(0o640)
    write_text("new", path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_second_of_two_runs_is_refused_and_the_first_ends(tmp_path):
    out = tmp_path / "m.onnx"
    out.write_bytes(OLD)
    args = arguments(LONG["prune"], tmp_path)
    first = start(args, tmp_path / "tmp")
    while not hidden(tmp_path):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # as long as it takes
    second = fails("quantize", MODEL, "-o", out, "--bits", 3, code=1)
    assert second == (
        f"error: {out}: another run is writing it; wait for its end, or name another output"
    )
    with pytest.raises(OutputError, match="another run is writing it"):
        write_text("", out)
    assert out.read_bytes() == OLD
    first.send_signal(signal.SIGCONT)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert load_model(out).graph.node
    assert hidden(tmp_path) == []


def test_many_runs_on_one_output_leave_that_of_one(tmp_path):
    """Weights of one never meet the graph of another."""
    script = (
        "import sys; from onnx_esn.errors import OutputError\n"
        "from tests.faults.killed_writer import model; from onnx_esn.graph.model_file import *\n"
        "done = 0\n"
        "while done < 25:\n"
        "    try: save_model(model(int(sys.argv[2])), sys.argv[1], external=True); done += 1\n"
        "    except OutputError as e: assert 'another run' in str(e), e\n"
    )
    path = tmp_path / "m.onnx"
    command = [sys.executable, "-c", script, str(path)]
    root = Path(__file__).parents[2]
    runs = [subprocess.Popen([*command, str(seed)], cwd=root) for seed in (1, 2)]
    seen = set()
    while any(run.poll() is None for run in runs):
        if path.exists():
            # A reader that is between model and weights when they go has to read again.
            with contextlib.suppress(FileNotFoundError, onnx.checker.ValidationError):
                seen.add(onnx.load(path).graph.name)
    assert [run.wait() for run in runs] == [0, 0]
    assert seen <= {"of 1", "of 2"}
    assert content(path, "with data") in ("old", "new")
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_of_one_process_take_turns(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "m.onnx"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: save_model(model(1 + i % 2), path, external=True), range(40)))
    assert content(path, "with data") in ("old", "new")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_live_process_is_at_stays(tmp_path):
    """Its files are removed by nobody else, those of a dead one by the next run."""
    script = (
        "import sys; from pathlib import Path; from onnx_esn.targets import beside\n"
        "from onnx_esn.temporary import new_folder\n"
        "new_folder()\n"
        "with beside(Path(sys.argv[1])) as written:\n"
        "    written.write_text('half')\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    path, temp = tmp_path / "a.json", tmp_path / "tmp"
    temp.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temp)},
    )
    assert process.stdout.readline() == b"ready\n"
    (folder,) = temp.glob("onnx-esn-*")
    with pytest.raises(OutputError, match="another run is writing it"):
        write_text("", path)
    temporary._remove_dead(temp)
    assert folder.is_dir()
    assert len(hidden(tmp_path)) == 2
    process.kill()
    process.communicate()
    assert len(hidden(tmp_path)) == 2
    write_text("whole", path)
    temporary._remove_dead(temp)
    assert hidden(tmp_path) == []
    assert list(temp.iterdir()) == []
    assert path.read_text() == "whole"


def test_names_that_are_nearly_too_long_can_be_written(tmp_path):
    for name in ("é" * 120 + ".json", "a" * 250 + ".json"):
        assert write_text("x", tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(OutputError, match="File name too long"):
        write_text("x", tmp_path / ("a" * 256))


def test_a_claim_ends_with_the_command(tmp_path):
    out = tmp_path / "m.onnx"
    fails("quantize", MODEL, "-o", out)  # no bits
    fails("quantize", tmp_path / "none.onnx", "-o", out, "--bits", 3)
    assert targets._CLAIMS == {}
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_into_one_folder(tmp_path):
    with targets.claimed(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    script = (
        "import sys; from pathlib import Path; from onnx_esn.targets import claimed\n"
        "with claimed(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"ready\n"
        line = fails("sweep", MODEL, "--images", IMAGES, "-o", tmp_path, code=1)
    assert line.startswith(f"error: {tmp_path}: another run is writing it")
    assert list(tmp_path.iterdir()) == []
