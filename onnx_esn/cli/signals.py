"""Ctrl-C and its relatives end the command within a second, whatever it is at.

Python sees a signal between two of its own instructions, and a run of onnxruntime, a solver or a
factorisation may be one instruction of a minute. So the signal is heard twice: as a
`KeyboardInterrupt`, with which the main thread ends by itself if it can, and by a thread that
waits for that only so long, then removes what is unfinished and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from onnx_esn.targets import abandon_all
from onnx_esn.temporary import remove_process_folder

_PATIENCE = 0.5  # seconds
_MEANING = {
    name: meaning
    for name, meaning in (
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
        ("SIGHUP", "the terminal is gone"),
    )
    if hasattr(signal, name)
}


class _State:
    """What has happened; one for the process, as signals are."""

    def __init__(self) -> None:
        self.received = 0
        self.raised = False
        self.last_word = threading.Lock()


_STATE = _State()


def end_on_signals() -> None:
    """Listen, in the main thread. Signals that the caller of the process ignores stay ignored."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    numbers = [getattr(signal, name) for name in _MEANING]
    signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard, numbers), daemon=True, name="signals").start()
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def received() -> tuple[str, int] | None:
    """What the signal that came means, and the exit code; None if none came."""
    if not _STATE.received:
        return None
    meaning = _MEANING[signal.Signals(_STATE.received).name]
    return meaning, 128 + _STATE.received


def may_speak() -> bool:
    """Whether the caller is the one to say how it ended; waits for the end if not."""
    if not _STATE.received or _STATE.last_word.acquire(blocking=False):
        return True
    time.sleep(10 * _PATIENCE)
    return False


def leave() -> None:
    """End the process now if a signal came: what threads still compute is not waited for.

    If none came, the work is done, and a signal that comes from now on finds nothing to end.
    """
    ended = received()
    if ended is None:
        for name in _MEANING:
            if signal.getsignal(getattr(signal, name)) is _interrupt:
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    else:
        _last_word(ended[0])
        abandon_all()
        remove_process_folder()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(ended[1])


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _STATE.raised:  # it is ending already
        return
    note(number)
    if _importing(frame):  # native modules may crash of it; the watch ends the process
        return
    _STATE.raised = True
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def note(number: int) -> None:
    """A signal came; the first one counts."""
    _STATE.received = _STATE.received or number
    # An interrupt within a destructor is swallowed with a traceback; the watch ends that too.
    sys.unraisablehook = lambda _: None


def _watch(heard: socket.socket, numbers: list[int]) -> None:
    """Wait for a signal, then for the main thread, then end the process."""
    while (number := heard.recv(1)[0]) not in numbers:
        pass
    note(number)
    time.sleep(_PATIENCE)
    leave()


def _last_word(meaning: str) -> None:
    """Say how it ended, if nobody has, also where the main thread is in the middle of a line."""
    if not _STATE.last_word.acquire(blocking=False):
        return
    with contextlib.suppress(OSError):
        # A progress bar may be there, and may have hidden the cursor.
        before = b"\r\x1b[2K\x1b[?25h" if os.isatty(2) else b""
        os.write(2, before + b"error: " + meaning.encode() + b"\n")
