"""Files of one JSON object a line, appended to: what a stopped run continues from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def append(path: Path, record: Record) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(_line(record))


def latest(path: Path, *keys: str) -> dict[tuple[Any, ...], Record]:
    """The last line for each combination of `keys`."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {tuple(r[k] for k in keys): r for r in lines}


def compact(path: Path, *keys: str) -> None:
    """Keep only the last line for each combination of `keys`, sorted."""
    found = latest(path, *keys)
    path.write_text("".join(_line(found[key]) for key in sorted(found)))


def _line(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n"
