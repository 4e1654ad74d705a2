"""Nodes, tensors and settings that differ, as (label, text): summed up, or one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from onnx_esn.evaluation.difference.changes import NodeChange, SettingChange, TensorChange

from . import numbers
from .layout import elide

_FEW = 3


def node_lines(changes: Sequence[NodeChange], everything: bool) -> Iterator[tuple[str, str]]:
    """Nodes by operator, or each by name."""
    gone = [c for c in changes if c.name[1] is None]
    new = [c for c in changes if c.name[0] is None]
    both = [c for c in changes if None not in c.name]
    changed = [c for c in both if c.differs]
    rerouted = [c for c in both if c.inputs and not c.differs]
    renamed = [c for c in both if c.name[0] != c.name[1]]
    if everything:
        yield from ((f"only before: {c.op[0]}", str(c.name[0])) for c in gone)
        yield from ((f"only after: {c.op[1]}", str(c.name[1])) for c in new)
        yield from ((f"changed: {c.name[0]}", _what(c)) for c in changed)
        yield from ((f"other way to: {c.name[0]}", _inputs(c)) for c in rerouted)
        yield from ((f"renamed: {c.name[0]}", str(c.name[1])) for c in renamed)
        return
    if gone:
        yield "only before", _counted(str(c.op[0]) for c in gone)
    if new:
        yield "only after", _counted(str(c.op[1]) for c in new)
    if changed:
        yield "changed", _counted(f"{c.op[0]} ({_what(c)})" for c in changed)
    if rerouted:
        yield "same source", f"{len(rerouted)} read it through nodes that came or went"
    if renamed:
        yield "renamed", str(len(renamed))


def _what(change: NodeChange) -> str:
    parts = []
    if change.op[0] != change.op[1]:
        parts.append(f"now {change.op[1]}")
    parts += [f"{name} {_side(a)} → {_side(b)}" for name, (a, b) in change.attributes.items()]
    for slot, (before, after) in change.inputs.items():
        if slot in change.passed:
            continue
        word = "added" if before is None else "removed" if after is None else "another"
        parts.append(f"input {slot} {word}")
    return ", ".join(parts)


def _inputs(change: NodeChange) -> str:
    return ", ".join(f"{a} → {b}" for a, b in change.inputs.values())


def setting_lines(changes: Sequence[SettingChange], everything: bool) -> Iterator[tuple[str, str]]:
    """Settings, with metadata summed up or not."""
    metadata: dict[str, list[str]] = {}
    for change in changes:
        key = change.what.partition("metadata ")[2]
        if key and not everything:
            word = "added" if change.before is None else "changed"
            metadata.setdefault("removed" if change.after is None else word, []).append(key)
        else:
            yield change.what, f"{_side(change.before)} → {_side(change.after)}"
    for word, keys in metadata.items():
        yield f"metadata {word}", _some(keys)


def tensor_lines(changes: Sequence[TensorChange], everything: bool) -> Iterator[tuple[str, str]]:
    """Stored tensors by what differs, or each by name."""
    if everything:
        yield from (_tensor(change) for change in changes)
        return
    both = [c for c in changes if None not in c.name]
    groups = {
        "only before": [_size(c, 0) for c in changes if c.name[1] is None],
        "only after": [_size(c, 1) for c in changes if c.name[0] is None],
        "other shape": [f"{c.name[0]} {_shapes(c)}" for c in both if c.shape[0] != c.shape[1]],
    }
    for title, names in groups.items():
        if names:
            yield title, _some(names)
    retyped = [f"{c.type[0]} → {c.type[1]}" for c in both if c.type[0] != c.type[1]]
    if retyped:
        yield "other type", _counted(retyped)
    values = [c for c in both if c.changed]
    if values:
        worst = min(values, key=lambda c: float("inf") if c.snr_db is None else c.snr_db)
        yield (
            "other values",
            f"{len(values)}, the least alike {worst.name[0]}: {numbers.decibel(worst.snr_db)}",
        )
    renamed = sum(c.name[0] != c.name[1] for c in both)
    if renamed:
        yield "renamed", str(renamed)


def _tensor(change: TensorChange) -> tuple[str, str]:
    if change.name[1] is None:
        return f"only before: {change.name[0]}", _size(change, 0)
    if change.name[0] is None:
        return f"only after: {change.name[1]}", _size(change, 1)
    parts = [] if change.name[0] == change.name[1] else [f"now {change.name[1]}"]
    if change.type[0] != change.type[1]:
        parts.append(f"{change.type[0]} → {change.type[1]}")
    if change.shape[0] != change.shape[1]:
        parts.append(_shapes(change))
    if change.changed:
        parts.append(f"largest change {change.max_abs:.3g}" if change.max_abs else "other values")
        parts.append(numbers.decibel(change.snr_db))
    return str(change.name[0]), ", ".join(parts)


def _size(change: TensorChange, side: int) -> str:
    return f"{change.name[side]} {_dims(change.shape[side])}"


def _shapes(change: TensorChange) -> str:
    return f"{_dims(change.shape[0])} → {_dims(change.shape[1])}"


def _dims(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape)) if shape else "scalar"


def _counted(words: Iterable[str]) -> str:
    found = Counter(words).most_common()
    return ", ".join(f"{number} {word}" for word, number in found)


def _some(words: Sequence[str]) -> str:
    shown = ", ".join(elide(word, 40) for word in words[:_FEW])
    return f"{len(words)}: {shown}" + (", …" if len(words) > _FEW else "")


def _side(value: object) -> str:
    return "none" if value is None else elide(" ".join(str(value).split()), 60)
