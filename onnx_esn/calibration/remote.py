"""Files and folders by URL: the only file of the project that imports fsspec.

A `RemotePath` has the methods of `pathlib.Path` that reading a set takes, so that the same code
reads both. A file that is not there is a `FileNotFoundError`, as it is there; everything else that
can go wrong is an `ImageSetError` of one line. What may pass is tried again first.
"""

from __future__ import annotations

import errno
import io
import logging
import posixpath
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from onnx_esn.errors import ImageSetError, OnnxEsnError
from onnx_esn.shelf import new_file
from onnx_esn.temporary import writing_temporary
from onnx_esn.urls import is_url, last_name, shown, was_url

log = logging.getLogger(__name__)

Result = TypeVar("Result")
TRIES = 3
PAUSE = 1.0  # seconds before the second try; doubled before each further one
# What is read at once at these distances; decoding takes fewer.
THREADS = 16
_FINAL = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ImportError, ValueError)
_DENIED = ("credential", "forbidden", "accessdenied", "access denied", "unauthorized")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp"}
_PACKAGES |= {"https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}


class RemotePath:
    """A file or folder of an fsspec file system.

    Args:
        url: what fsspec takes, chains included.

    Raises:
        ImageSetError: fsspec, or what it needs for this protocol, is not installed; or the URL is
            none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = last_name(url)
        self.suffix = posixpath.splitext(self.name)[1]
        self._shown = shown(url)
        self._told: list[str] = []  # shared with what is below: one warning for all of it
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImageSetError(
                f"{self._shown}: needs fsspec: pip install 'onnx-esn[remote]'"
            ) from error
        self._fs, root = self._tried(lambda: url_to_fs(url))
        self._root: str = root.rstrip("/")

    def __str__(self) -> str:
        return self._shown

    def __truediv__(self, name: str) -> RemotePath:
        path = object.__new__(RemotePath)
        path.url = f"{self.url.rstrip('/')}/{name}"
        path.name, path.suffix = posixpath.basename(name), posixpath.splitext(name)[1]
        path._shown = f"{self._shown.rstrip('/')}/{name}"
        path._fs, path._told = self._fs, self._told
        name = quote(name) if self._quoted else name
        path._root = f"{self._root}/{name}" if self._root else name
        return path

    def is_file(self) -> bool:
        """Whether there is such a file, by reading it: a small one.

        Other ways to ask take trouble with the network for a no, where it is the web.
        """
        try:
            self.read_bytes()
        except FileNotFoundError:
            return False
        return True

    def exists(self) -> bool:
        """Whether there is anything; ask once something else has shown that the place answers."""
        return bool(self._tried(lambda: self._fs.exists(self._root)))

    def read_bytes(self) -> bytes:
        """The file; raises `FileNotFoundError`."""
        content: bytes = self._tried(lambda: self._fs.cat_file(self._root))
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file as text; raises `FileNotFoundError`."""
        return self.read_bytes().decode(encoding)

    def open(self, encoding: str, newline: str) -> io.StringIO:
        """The file as a stream of text; raises `FileNotFoundError`."""
        return io.StringIO(self.read_text(encoding), newline=newline)

    def find(self) -> list[str]:
        """All files at any depth, as POSIX paths relative to this folder, in any order.

        Nothing where there is no such folder, as with some file systems: see `exists`.
        """
        prefix = f"{self._root}/" if self._root else ""
        try:
            found = self._tried(lambda: _all_files(self._fs, self._root))
        except FileNotFoundError:
            return []
        names = [str(path)[len(prefix) :] for path in found if str(path).startswith(prefix)]
        return [unquote(name) for name in names] if self._quoted else names

    def fetched(self) -> Path:
        """A copy in a temporary file, made block by block; raises `FileNotFoundError`."""
        path = new_file(self.suffix)

        def copy() -> None:
            try:
                self._fs.get_file(self._root, str(path))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    with writing_temporary():
                        raise
                raise

        self._tried(copy)
        return path

    @property
    def _quoted(self) -> bool:
        """Whether names are parts of web addresses."""
        protocol = self._fs.protocol
        return "http" in ((protocol,) if isinstance(protocol, str) else protocol)

    def _tried(self, action: Callable[[], Result], number: int = 1) -> Result:
        """The result of an action, which is repeated where that may help.

        Raises:
            FileNotFoundError: there is no such file.
            ImageSetError: all else.
        """
        try:
            return action()
        except (FileNotFoundError, OnnxEsnError):
            raise
        except Exception as error:  # each file system has exceptions of its own
            if number == TRIES or not _may_pass(error):
                raise ImageSetError(f"{self._shown}: {self._reason(error)}") from error
            level = logging.INFO if self._told else logging.WARNING
            self._told.append(self._shown)
            log.log(level, "%s: %s; tried again", self._shown, _line(error))
        time.sleep(PAUSE * 2 ** (number - 1))
        return self._tried(action, number + 1)

    def _reason(self, error: Exception) -> str:
        protocol = self.url.split("::")[0].split("://")[0].lower()
        if isinstance(error, ImportError):
            package = error.name or next(
                (_PACKAGES[p] for p in _protocols(self.url) if p in _PACKAGES), protocol
            )
            return f"{_line(error)}: pip install {package}"
        if "rotocol not known" in str(error):
            return "fsspec knows no such protocol; those it knows: fsspec.available_protocols()"
        if _is_denied(error):
            return (
                f"access was refused ({_line(error)}); the credentials that "
                f"{_PACKAGES.get(protocol, 'fsspec')} looks for are missing or not enough"
            )
        if _may_pass(error):
            return f"cannot be reached, tried {TRIES} times ({_line(error)})"
        return f"cannot be read ({_line(error)})"


Location = Path | RemotePath


def located(place: str | Path | RemotePath) -> Location:
    """A path on this machine, with ~ expanded, or one elsewhere.

    Raises:
        ImageSetError: what a URL needs is not installed; or it was made a path, which breaks it.
    """
    if isinstance(place, RemotePath):
        return place
    if isinstance(place, str) and is_url(place):
        return RemotePath(place)
    path = Path(place).expanduser()
    if was_url(place) and not path.exists():
        raise ImageSetError(f"{path}: is a URL that was made a path; pass it as a text")
    return path


def _all_files(files: Any, root: str) -> list[str]:
    """Every file below a folder; an error in listing one of its folders is an error."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    own = type(files).find is not AbstractFileSystem.find
    if isinstance(files, AsyncFileSystem):
        own = type(files)._find is not AsyncFileSystem._find
    if own:  # one request for all, with buckets
        return [str(path) for path in files.find(root, withdirs=False)]
    # What `find` is otherwise leaves out the folders that it could not list.
    walk = files.walk(root, on_error="raise")
    return [f"{folder}/{name}" for folder, _, names in walk for name in names]


def _is_denied(error: Exception) -> bool:
    said = f"{type(error).__name__} {error}".lower()
    status = getattr(error, "status", None)
    return isinstance(error, PermissionError) or status in (401, 403) or any(
        word in said for word in _DENIED
    )  # fmt: skip


def _may_pass(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return False
    return not isinstance(error, _FINAL) and not _is_denied(error)


def _protocols(url: str) -> list[str]:
    return [link.split("://")[0].lower() for link in url.split("::")]


def _line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0][:300]) if lines else type(error).__name__
