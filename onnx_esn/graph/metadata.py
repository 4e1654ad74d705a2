"""Our own keys in `metadata_props`: read, replace, remove. Other tools' keys are never touched.

ONNX requires the keys of one `metadata_props` to be distinct; Netron shows them as properties of
the model or node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

PREFIX = "onnx_esn."
Owner = onnx.ModelProto | onnx.NodeProto

# The first IR version whose nodes may carry metadata.
NODE_IR_VERSION = 10


def read(owner: Owner) -> dict[str, str]:
    """Return the values of our keys, without their prefix; of a repeated key the last one."""
    return {p.key[len(PREFIX) :]: p.value for p in owner.metadata_props if p.key.startswith(PREFIX)}


def replace(owner: Owner, values: Mapping[str, str]) -> None:
    """Set our keys (given without prefix) in place.

    A key that is there keeps its position, so that writing the same values again changes no byte;
    repetitions of it are dropped and new keys come last, in the order given.
    """
    left = {PREFIX + key: value for key, value in values.items()}
    kept = []
    for entry in owner.metadata_props:
        if entry.key in left:
            kept.append((entry.key, left.pop(entry.key)))
        elif not (entry.key.startswith(PREFIX) and entry.key[len(PREFIX) :] in values):
            kept.append((entry.key, entry.value))
    _write(owner, [*kept, *left.items()])


def remove(owner: Owner, keys: Iterable[str] | None = None) -> bool:
    """Remove our keys (given without prefix; None: all of them); True if there was one."""
    gone = None if keys is None else {PREFIX + key for key in keys}
    entries = [(p.key, p.value) for p in owner.metadata_props]
    kept = [
        (key, value)
        for key, value in entries
        if not key.startswith(PREFIX) or (gone is not None and key not in gone)
    ]
    if len(kept) < len(entries):
        _write(owner, kept)
    return len(kept) < len(entries)


def _write(owner: Owner, entries: list[tuple[str, str]]) -> None:
    del owner.metadata_props[:]
    for key, value in entries:
        owner.metadata_props.add(key=key, value=value)
