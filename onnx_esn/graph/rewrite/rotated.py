"""The record a rotated model carries of which layers its linear tensors changed.

A JSON object in the model's metadata: names of the layers whose outputs are in another basis than
the input model's (``made``), and of those that read them (``read``), so that nobody compares the
numbers one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import onnx

from onnx_esn.graph import metadata

ROTATED_KEY = "onnx_esn.rotated"
_NAME = ROTATED_KEY.removeprefix(metadata.PREFIX)


class Rotated(NamedTuple):
    """Names of the layers that make rotated tensors, and of those that read them."""

    made: frozenset[str]
    read: frozenset[str]


def record_rotated(model: onnx.ModelProto, made: Iterable[str], read: Iterable[str]) -> None:
    """Write the record in place, added to what is there."""
    before = rotated_layers(model)
    lists = {"made": sorted(before.made | set(made)), "read": sorted(before.read | set(read))}
    metadata.replace(model, {_NAME: json.dumps(lists, separators=(",", ":"))})


def in_other_basis(model: onnx.ModelProto, reference: onnx.ModelProto) -> frozenset[str]:
    """Layers whose outputs are in another basis than those of the same name in the reference.

    Two rotations with different seeds leave the same record, and are not told apart.
    """
    return rotated_layers(model).made ^ rotated_layers(reference).made


def rotated_layers(model: onnx.ModelProto) -> Rotated:
    """The record; empty where there is none, or a damaged one."""
    try:
        found = json.loads(metadata.read(model).get(_NAME, "{}"))
        made, read = (found.get(key, []) for key in ("made", "read"))
        return Rotated(frozenset(map(str, made)), frozenset(map(str, read)))
    except (ValueError, TypeError, AttributeError):
        return Rotated(frozenset(), frozenset())
