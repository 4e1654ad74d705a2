"""Which texts are URLs, and what of them may be shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
# What `pathlib` makes of a URL.
_BROKEN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def is_url(text: object) -> bool:
    """Whether a text names a place by protocol: ``s3://…``, ``zip://…::s3://…``."""
    return isinstance(text, str) and _URL.match(text) is not None


def was_url(path: object) -> bool:
    """Whether a path looks like a URL that lost a slash by being made a path."""
    return _BROKEN.match(str(path)) is not None


def shown(url: str) -> str:
    """A URL for messages and logs: without passwords, and the signatures behind a ``?``."""
    url = re.sub(r"(://)[^/@\s]*@", r"\1…@", url)
    return re.sub(r"\?[^:\s]*", "?…", url)


def last_name(url: str) -> str:
    """The last part of the path, of the first link of a chain."""
    path = re.sub(r"\?.*", "", url.split("::")[0].partition("://")[2].rstrip("/"))
    if not path and "::" in url:
        return last_name(url.split("::", 1)[1])
    return unquote(path.rpartition("/")[2])
