"""Files take the place of their target whole, checked, and one run at a time.

What is written lies in a hidden folder beside the target, ``.NAME.onnx-esn.*``, until it is
complete; a rename puts it in place. As long as a run is at it, it holds ``.NAME.onnx-esn.lock``.
A killed process leaves both: the next run on the target sees that nobody holds the lock any more,
and removes them.

A model's companions (see `companions`) are put in place first, then the model; what the replaced
model alone referred to is removed after.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx_esn.companions import companions, drop, mentions
from onnx_esn.errors import OutputError
from onnx_esn.locks import Lock, take

log = logging.getLogger(__name__)

_MARK = ".onnx-esn."
_LONGEST = 150  # of a name, in bytes; file systems end at 255, and ours are longer


@dataclass
class Claim:
    """A target that this process alone writes.

    Attributes:
        target: its absolute path.
        lock: what says so to other processes.
        holders: how many parts of this process rely on it.
        scratch: folders that are written to.
    """

    target: Path
    lock: Lock
    holders: int = 1
    scratch: set[Path] = field(default_factory=set)


_CLAIMS: dict[Path, Claim] = {}
_KEPT: list[Claim] = []  # until `release_kept`
_GUARD = threading.RLock()


@contextlib.contextmanager
def claimed(target: Path) -> Iterator[Claim]:
    """Nobody else writes the target in this block; what dead processes left of it is removed.

    Args:
        target: a file, or a folder that exists: for those who write several files into it.

    Raises:
        OutputError: another process is writing it, or its folder cannot be written.
    """
    claim = _claim(target)
    try:
        yield claim
    finally:
        _release(claim)


def keep_claimed(target: Path) -> None:
    """Claim a target until `release_kept`: before the work that its content takes.

    Raises:
        OutputError: as `claimed`.
    """
    _KEPT.append(_claim(target))


def release_kept() -> None:
    """Let go of the targets of `keep_claimed`."""
    while _KEPT:
        _release(_KEPT.pop())


def abandon_all() -> None:
    """Remove what is not in place yet: the process is about to end, whatever its threads are at."""
    if not _GUARD.acquire(timeout=0.2):  # a rename is under way: the next run cleans up
        return
    for claim in list(_CLAIMS.values()):
        for scratch in claim.scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        claim.lock.release(keep=any(scratch.exists() for scratch in claim.scratch))


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a file to write, which takes the place of `path` when the block ends well.

    Files beside it that are called as `companions.data_name` says go with it.

    Raises:
        OutputError: the target is no file, its folder is missing or cannot be written, the disk is
            full, or another process is writing the target.
    """
    try:
        check_target(path)
        with claimed(path) as claim:
            scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{_stem(path)}{_MARK}"))
            claim.scratch.add(scratch)
            try:
                written = scratch / path.name
                yield written
                _put_in_place(claim, written, path)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
                claim.scratch.discard(scratch)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_target(path: Path) -> None:
    """Refuse what no file can be renamed to; raises `OutputError`."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder {path.parent} does not exist; create it first")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or a pipe; name a file to write")


def clean_folder(folder: Path) -> None:
    """Remove what dead processes left beside any target in a folder.

    The next run on a target does that anyway; this is for targets that are complete, and which
    nobody writes again.
    """
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f".*{_MARK}lock")):
            lock = take(path)
            if lock is None:
                continue
            name = path.name.removeprefix(".").removesuffix(f"{_MARK}lock")
            if lock.found is not None and lock.sure:
                _clean_up(Claim(folder / name, lock))
            lock.release(keep=not lock.sure)


def _claim(target: Path) -> Claim:
    folder = target.is_dir()
    place = target.resolve() / "all" if folder else target.parent.resolve() / target.name
    with _GUARD:
        if place in _CLAIMS:
            _CLAIMS[place].holders += 1
            return _CLAIMS[place]
        try:
            lock = take(place.with_name(f".{_stem(place)}{_MARK}lock"))
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
        if lock is None:
            raise OutputError(
                f"{target}: another run is writing it; wait for its end, or name another output"
            )
        claim = _CLAIMS[place] = Claim(place, lock)
        if lock.found is not None and lock.sure:
            _clean_up(claim)
        return claim


def _release(claim: Claim) -> None:
    with _GUARD:
        claim.holders -= 1
        if not claim.holders:
            del _CLAIMS[claim.target]
            claim.lock.release()


def _stem(path: Path) -> str:
    """A name for what is hidden beside it: of its own, and short enough to add to."""
    name = path.name
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 8]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _clean_up(claim: Claim) -> None:
    """Remove what a dead process left: folders, and companions that no model took over."""
    ours = re.compile(rf"\.{re.escape(_stem(claim.target) + _MARK)}[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError, ValueError):
        for path in claim.target.parent.iterdir():
            if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                log.info("%s: left behind by a process that is gone; removed", path)
                shutil.rmtree(path, ignore_errors=True)
        drop(claim.target, json.loads(claim.lock.found or "[]"))


def _put_in_place(claim: Claim, written: Path, path: Path) -> None:
    """Rename companions, then the file; remove the companions of what was there."""
    new = {p.name for p in written.parent.iterdir()} - {written.name}
    with _GUARD:
        concerned = new
        if path.is_file():
            # Rights that somebody gave it stay.
            written.chmod(stat.S_IMODE(path.stat().st_mode))
            concerned = new | {name for name in companions(path) if mentions(path, name)}
        if concerned:
            claim.lock.note(json.dumps(sorted(concerned)))
        try:
            for name in sorted(new):
                written.with_name(name).replace(path.with_name(name))
            written.replace(path)
        finally:
            if concerned:
                drop(path, concerned)
                claim.lock.note("")
