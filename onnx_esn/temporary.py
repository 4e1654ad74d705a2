"""One folder for all temporary files of this process; those of dead processes are removed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnx_esn.errors import OutputError
from onnx_esn.locks import Lock, take

log = logging.getLogger(__name__)

_PREFIX = "onnx-esn-"
_LOCK = "lock"
_KEPT: dict[Path, Lock] = {}  # the lock is held as long as this process lives


@functools.cache
def process_folder() -> Path:
    """The folder (in `TMPDIR`); it goes when the process ends, at the latest with the next one.

    Raises:
        OutputError: it cannot be made.
    """
    with writing_temporary():
        _remove_dead(Path(tempfile.gettempdir()))
        # It takes its name once it is held: so nobody takes it for one that was left behind.
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}")).resolve()
        lock = take(made / _LOCK)
        folder = made.with_name(made.name[1:])
        made.rename(folder)
    if lock is not None:
        _KEPT[folder] = lock
    atexit.register(_remove, folder, os.getpid())
    return folder


def new_folder() -> Path:
    """A folder in it that nobody else has; raises `OutputError`."""
    with writing_temporary():
        return Path(tempfile.mkdtemp(dir=process_folder(), prefix=""))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Such a folder, which goes when the block ends; raises `OutputError`."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing_temporary() -> Iterator[None]:
    """What cannot be written into a temporary file is one line that says what to do."""
    try:
        yield
    except OSError as error:
        place = tempfile.gettempdir()
        raise OutputError(
            f"temporary files cannot be written to {place}: {error.strerror or error}; set TMPDIR "
            "to a folder with more room"
        ) from error


def remove_process_folder() -> None:
    """Remove all temporary files at once: the process is about to end."""
    for folder in list(_KEPT):
        shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork, which has the same list of what to do at its end
        shutil.rmtree(folder, ignore_errors=True)


def _remove_dead(place: Path) -> None:
    """Remove folders of this user that no live process holds."""
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            if not (folder / _LOCK).is_file() or folder.is_symlink():
                continue
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                continue
            lock = take(folder / _LOCK)
        except OSError:
            continue
        if lock is None:
            continue
        if lock.sure:
            log.info("%s: left behind by a process that is gone; removed", folder)
            shutil.rmtree(folder, ignore_errors=True)
        lock.release(keep=True)
