"""Ctrl-C and its relatives: an end within a second, one line, the right exit code, no remains."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .commands import LONG, MODEL, ROOT, arguments, environment, everything, hidden, start

# Seconds. An end takes half of one on a free machine; on a busy one no test should fail for it.
PATIENCE = 5.0
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
WORDS[signal.SIGHUP] = "the terminal is gone"


@pytest.fixture(autouse=True)
def _nothing_is_ignored():
    """A shell starts background work with interrupts ignored, which children inherit."""
    before = {number: signal.getsignal(number) for number in WORDS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def end(process, number):
    """Send the signal; the seconds until the end, and what was said."""
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    return time.monotonic() - began, errors


def check_clean(out, temporary):
    assert hidden(out) == []
    assert [p.name for p in temporary.glob("*onnx-esn*")] == []


def check_words(process, errors, number):
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("error")]
    assert lines == [f"error: {WORDS[number]}"], errors
    assert process.returncode == 128 + number


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# Calls that Python cannot break off, one instruction each: linear algebra, and onnxruntime.
BUSY = {
    "numpy": "import numpy as np; a = np.ones((400, 400)); ready()\n"
    "while True: np.einsum('ij,jk,kl->il', a, a, a)",
    "onnxruntime": "import numpy as np; from tests.net import Net\n"
    "from onnx_esn.calibration import Session\n"
    "net = Net(256, 64, 64); y = 'x'\n"
    "for _ in range(8): y = net.conv(y, 256, 256)\n"
    "s = Session(net.model(y)); ready(); s.run({'x': np.ones((64, 256, 64, 64), np.float32)})",
    "a thread": "import time; from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(2) as pool:\n"
    "    for _ in range(9): pool.submit(time.sleep, 30)\n"
    "    ready(); time.sleep(30)",
    "a destructor": "import time\nclass A:\n"
    "    def __del__(self): ready(); time.sleep(30)\n"
    "A(); time.sleep(30)",
}


@pytest.mark.parametrize("what", list(BUSY))
def test_what_python_cannot_break_off(tmp_path, what):
    script = (
        "import click, sys; from pathlib import Path\n"
        "from onnx_esn import temporary, targets\n"
        "from onnx_esn.cli import output, signals\n"
        "def ready():\n"
        "    temporary.new_folder(); targets.keep_claimed(Path(sys.argv[1]) / 'm.onnx')\n"
        "    print('ready', flush=True)\n"
        "@click.command()\n@output.guarded\n"
        f"def busy(out):\n    exec({BUSY[what]!r}, {{'ready': ready}})\n"
        "signals.end_on_signals()\n"
        "try: busy(['-q'])\n"
        "finally: signals.leave()\n"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment(tmp_path),
        cwd=ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    time.sleep(0.3)
    assert process.poll() is None
    seconds, errors = end(process, signal.SIGINT)
    check_words(process, errors, signal.SIGINT)
    assert seconds < PATIENCE
    check_clean(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("verb", "number"),
    [("prune", signal.SIGINT), ("quantize", signal.SIGTERM), ("evaluate", signal.SIGHUP)],
)
def test_a_command_ends_at_once(out, tmp_path, verb, number):
    if verb != "evaluate":
        (out / "m.onnx").write_bytes(b"old")
    process = start(arguments(LONG[verb], out), tmp_path / "tmp")
    while process.poll() is None and not (hidden(out) or verb == "evaluate"):
        time.sleep(0.01)
    time.sleep(1)
    seconds, errors = end(process, number)
    check_words(process, errors, number)
    assert seconds < PATIENCE
    check_clean(out, tmp_path / "tmp")
    assert set(everything(out).values()) <= {b"old"}


def test_signals_that_are_ignored_stay_ignored(out, tmp_path):
    """As with nohup, and of what a shell starts in the background."""
    ignore = lambda: [signal.signal(n, signal.SIG_IGN) for n in WORDS]  # noqa: E731
    args = ["quantize", str(MODEL), "-o", str(out / "m.onnx"), "--bits", "8"]
    process = start(args, tmp_path / "tmp", preexec_fn=ignore)
    while process.poll() is None and not hidden(out):
        time.sleep(0.01)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
    assert process.communicate(timeout=120) is not None
    assert process.returncode == 0
    assert (out / "m.onnx").is_file()


@pytest.mark.parametrize("raised", [True, False], ids=["in the work", "at its end"])
def test_whoever_hears_a_signal_first_the_work_ends_and_it_is_said(tmp_path, raised):
    """The watch may run before the main thread, which then has to end all the same."""
    script = (
        "from onnx_esn.cli import signals\n"
        "signals.end_on_signals(); signals.note(15)\n"
        "try: signals._interrupt(15, None)\n"
        "except KeyboardInterrupt: print('raised')\n"
        "signals.leave()\n"
    )
    if not raised:
        script = script.replace("signals._interrupt(15, None)", "pass")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("raised\n" * raised, "error: terminated\n")
    assert done.returncode == 143


def test_an_import_is_not_broken_off(tmp_path):
    """Native modules abort where their initialisation raises; the watch ends the process."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('whole', flush=True); time.sleep(5); print('too late', flush=True)\n"
    )
    script = (
        "from onnx_esn.cli import signals\n"
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); signals.end_on_signals()\n"
        "import slow\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("whole\n", "error: terminated\n")
    assert done.returncode == 143


def test_a_signal_after_the_end_of_the_work_changes_nothing(tmp_path):
    """Python itself would die of it, while it tidies up."""
    script = (
        "import time; from onnx_esn.cli.signals import end_on_signals, leave\n"
        "end_on_signals(); leave(); print('ready', flush=True); time.sleep(0.5)\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.communicate()[1] == b""
    assert process.returncode == 0


def test_on_a_terminal_the_progress_bar_goes(out, tmp_path):
    """And the cursor, which it hides, comes back; the key is pressed more than once."""
    leader, follower = pty.openpty()
    env = environment(tmp_path / "tmp", TERM="xterm", COLUMNS="80")
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_esn", *arguments(LONG["quantize"], out)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(follower)
    shown = b""
    while b"\x1b[?25l" not in shown:
        shown += os.read(leader, 4096)
    time.sleep(0.5)
    began = time.monotonic()
    for _ in range(3):
        os.write(leader, b"\x03")
        time.sleep(0.02)
    while process.poll() is None:
        shown += read(leader)
    seconds = time.monotonic() - began
    shown += read(leader)
    os.close(leader)
    assert process.returncode == 130, shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
    assert shown.count(b"error: ") == shown.count(b"error: interrupted\r\n") == 1
    assert b"Traceback" not in shown
    assert seconds < PATIENCE
    check_clean(out, tmp_path / "tmp")


def read(leader):
    try:
        return os.read(leader, 65536)
    except OSError:  # nobody is at the other end any more
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("verb", list(LONG))
def test_every_long_command_at_random_moments(tmp_path, verb, number):
    draw = random.Random(verb)
    temporary, folder = tmp_path / "tmp", tmp_path / "out"
    folder.mkdir()
    began = time.monotonic()
    process = start(arguments(LONG[verb], folder), temporary)
    assert process.wait(300) == 0
    whole = time.monotonic() - began
    process.communicate()
    worst = 0.0
    for turn in range(6):
        place = tmp_path / str(turn)
        place.mkdir()
        process = start(arguments(LONG[verb], place), temporary)
        time.sleep(draw.uniform(0.3, 0.95 * whole))
        if process.poll() is not None:
            process.communicate()
            continue
        seconds, errors = end(process, number)
        if process.returncode:
            check_words(process, errors, number)
            check_clean(Path(place), temporary)
        worst = max(worst, seconds)
    print(f"{verb}: {worst:.2f} s at most")
    assert worst < PATIENCE
