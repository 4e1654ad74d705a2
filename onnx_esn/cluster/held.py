"""What a worker's process holds, by the hash of its content: each thing is sent to it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Models, sets and the like; what was not used for longest goes.
MOST = 8

_lock = threading.RLock()
_held: OrderedDict[str, Any] = OrderedDict()
_parts: dict[str, list[Any]] = {}

Build = Callable[[list[Any]], Any]
Reach = Callable[[], Any]
Function = Callable[[Mapping[str, Any], Any], Any]


@dataclass(frozen=True)
class Missing:
    """The answer of a worker that lacks something: it has been restarted, say."""

    keys: tuple[str, ...]


def missing(keys: Sequence[str]) -> Missing:
    """Which of them this process does not hold."""
    with _lock:
        return Missing(tuple(key for key in keys if key not in _held))


def reach(key: str, fetch: Reach) -> str:
    """Get something from where it is; the reason why not, or ""."""
    try:
        found = fetch()
    except Exception as error:  # whatever it is, it is sent instead
        return str(error) or type(error).__name__
    _keep(key, found)
    return ""


def receive(key: str, number: int, part: Any, keep: Callable[[Any], Any]) -> None:
    """Take one part of something, in order; the first part begins anew."""
    with _lock:
        if number == 0:
            _parts[key] = []
        parts = _parts[key]
        if len(parts) == number:
            parts.append(keep(part))


def assemble(key: str, count: int, build: Build) -> bool:
    """Make one thing of its parts; whether all of them were there."""
    with _lock:
        parts = _parts.pop(key, [])
    if len(parts) != count:
        return False
    _keep(key, build(parts))
    return True


def call(
    function: Callable[[Mapping[str, Any], Any], Any], keys: Mapping[str, str], item: Any
) -> Any:
    """``function(held, item)`` with what is held by name, or what is `Missing`."""
    with _lock:
        if lacking := missing(tuple(keys.values())).keys:
            return Missing(lacking)
        for key in keys.values():
            _held.move_to_end(key)
        held = {name: _held[key] for name, key in keys.items()}
    return function(held, item)


def _keep(key: str, thing: Any) -> None:
    with _lock:
        _held[key] = thing
        while len(_held) > MOST:
            _held.popitem(last=False)
