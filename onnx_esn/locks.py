"""Files that a process holds as long as it lives: the system lets go of them when it dies.

What a dead process has left behind can be told from what a live one is at work on, without asking
for process numbers, which are given out again and mean nothing on another machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# A file system that has no locks: nobody can be told to be alive, nor to be dead.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class Lock:
    """A file that is held; see `take`.

    Attributes:
        path: the file.
        found: what a dead process had noted in it; None if there was no such file.
        sure: whether the file system knows locks.
    """

    def __init__(self, path: Path, descriptor: int, found: str | None, sure: bool) -> None:
        self.path, self.found, self.sure = path, found, sure
        self._descriptor = descriptor

    def note(self, text: str) -> None:
        """Write what the next one has to know if this process dies."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode())

    def release(self, *, keep: bool = False) -> None:
        """Let go of the file, and remove it; `keep`: leave it to the next one to look at."""
        if not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)


def take(path: Path) -> Lock | None:
    """Hold a file, which is made where it is missing; None if a live process holds it.

    Raises:
        OSError: it can be neither opened nor made.
    """
    while True:
        try:
            descriptor, new = _open(path)
        except PermissionError:
            if not _remove_dead(path):
                raise
            continue
        try:
            sure = _lock(descriptor)
            if sure is None:
                os.close(descriptor)
                return None
            # Its last holder may have removed it before the lock was had.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # noqa: PTH116
                found = None if new else os.read(descriptor, 1 << 16).decode(errors="replace")
                return Lock(path, descriptor, found, sure)
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the file is new."""
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR), False


def _lock(descriptor: int) -> bool | None:
    """Whether locks are known here; None if somebody else has this one."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _remove_dead(path: Path) -> bool:
    """Remove the file that a dead process of another user left; whether that could be done."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        if _lock(descriptor):
            path.unlink()
            return True
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return False
