"""Reading documents: one line that names the file and the field that is wrong."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_esn.errors import PlanError


def read_document(path: str | Path, what: str = "plan") -> Any:
    """The parsed JSON of a file, a plan or `what` it is; raises `PlanError`."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PlanError(f"{path}: no such {what} file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not a {what}: {error}") from error
    return parse_json(text, str(path), what)


def parse_json(text: str, where: str, what: str = "plan") -> Any:
    """The document that a JSON text holds; raises `PlanError`."""
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:  # the latter: lists in lists without end
        raise PlanError(f"{where}: not a {what}: {error}") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return document


class Reader:
    """Takes fields out of a document, or says what is wrong with them.

    Attributes:
        where: the file, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def known(self, document: Mapping[str, Any], names: Sequence[str]) -> None:
        """Refuse fields of the document that are none of `names`."""
        for key in document:
            if key not in names:
                close = difflib.get_close_matches(key, names, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
                raise PlanError(f"{self.where}: a plan has no field {key!r}; {hint}")

    def entries(
        self, document: Mapping[str, Any], key: str, required: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        """A list of objects; empty where it is absent and not required."""
        value = document.get(key)
        if value is None and not required:
            return []
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            raise PlanError(f"{self.where}: {key!r} must be a list of objects")
        return value

    def text(self, entry: Mapping[str, Any], key: str) -> str:
        """A string."""
        value = entry.get(key)
        if not isinstance(value, str):
            raise PlanError(f"{self.where}: {key!r} must be a string in {_short(entry)}")
        return value

    def texts(self, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """A list of strings; empty where it is absent."""
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise PlanError(f"{self.where}: {key!r} must be a list of strings in {_short(entry)}")
        return tuple(value)

    def integer(self, entry: Mapping[str, Any], key: str) -> int:
        """An integer from 0."""
        value = entry.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise PlanError(f"{self.where}: {key!r} must be an integer from 0 in {_short(entry)}")
        return value

    def integers(self, entry: Mapping[str, Any], key: str) -> list[int]:
        """A list of integers from 0."""
        value = entry.get(key)
        if not isinstance(value, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value
        ):
            raise PlanError(
                f"{self.where}: {key!r} must be a list of integers from 0 in {_short(entry)}"
            )
        return value

    def numbers(self, entry: Mapping[str, Any], key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = entry.get(key)
        if not isinstance(value, list) or not all(_number(v) for v in value):
            raise PlanError(f"{self.where}: {key!r} must be a list of numbers in {_short(entry)}")
        return tuple(float(v) for v in value)

    def number(self, entry: Mapping[str, Any], key: str) -> float:
        """A finite number."""
        value = entry.get(key)
        if not _number(value):
            raise PlanError(f"{self.where}: {key!r} must be a number in {_short(entry)}")
        return float(value)  # type: ignore[arg-type]  # it is one

    def ratio(self, value: Any, what: str) -> None:
        """Check that a value is a ratio, 0 ≤ ratio < 1."""
        if not _number(value) or not 0 <= value < 1:
            raise PlanError(f"{self.where}: {what} is {value!r}, not a fraction: 0 ≤ ratio < 1")


def write_document(
    schema: str, lists: Mapping[str, Sequence[Any]], nested: Mapping[str, str] | None = None
) -> str:
    """One JSON document, a line per entry: made to be read and edited.

    Args:
        schema: its schema.
        lists: its lists, by name.
        nested: other such documents within it, by name.
    """
    parts = [f'  "schema": {json.dumps(schema)}']
    for key, entries in lists.items():
        lines = ",\n".join("    " + json.dumps(e, ensure_ascii=False) for e in entries)
        parts.append(f'  "{key}": [\n{lines}\n  ]' if lines else f'  "{key}": []')
    for key, text in (nested or {}).items():
        nested_text = text.strip().replace("\n", "\n  ")
        parts.append(f'  "{key}": {nested_text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _short(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry)
    return text if len(text) < 80 else text[:77] + "..."
