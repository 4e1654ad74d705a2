"""Stored tensors that one model lacks, and tensors whose type, shape or values differ."""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from .changes import TensorChange
from .pairing import Pairing
from .wiring import Stored, Wiring, digest, same_values

Array = npt.NDArray[Any]
_CHUNK = 1 << 20  # values turned into float64 at a time


def tensor_changes(a: Wiring, b: Wiring, pairing: Pairing) -> tuple[TensorChange, ...]:
    """Changes in the order of the first model; tensors that are new come last."""
    first, second = a.stored(), b.stored()
    partner = _partners(a, b, pairing, first, second)
    result = []
    for name, mine in first.items():
        other = partner.get(name)
        if other is None:
            result.append(TensorChange((name, None), (_type(mine), None), (mine.shape, None)))
            continue
        change = _compare(a, name, mine, b, other, second[other])
        if change is not None:
            result.append(change)
    taken = set(partner.values())
    for name, theirs in second.items():
        if name not in taken:
            result.append(TensorChange((None, name), (None, _type(theirs)), (None, theirs.shape)))
    return tuple(result)


def differ(before: Array, after: Array) -> tuple[float | None, float | None]:
    """(largest difference, SNR in dB) of arrays of one shape; None for what is not a number."""
    if before.dtype.kind in "OSU" or after.dtype.kind in "OSU":
        return None, None
    x, y = before.reshape(-1), after.reshape(-1)
    signal = noise = largest = 0.0
    for start in range(0, x.size, _CHUNK):
        u = x[start : start + _CHUNK].astype(np.float64)
        v = y[start : start + _CHUNK].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where((u == v) | (np.isnan(u) & np.isnan(v)), 0.0, v - u)
            error[np.isnan(error)] = np.inf  # a number here, none there
            signal += float(np.square(u).sum())
            noise += float(np.square(error).sum())
            largest = max(largest, float(np.abs(error).max(initial=0)))
    return largest, ratio_db(signal, noise)


def ratio_db(signal: float, noise: float) -> float | None:
    """10·log10(signal / noise): infinite without noise, None where it means nothing."""
    if noise == 0:
        return math.inf
    if not math.isfinite(signal) or not math.isfinite(noise):
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _compare(
    a: Wiring, name: str, mine: Stored, b: Wiring, other: str, theirs: Stored
) -> TensorChange | None:
    names, types = (name, other), (_type(mine), _type(theirs))
    if mine.shape != theirs.shape:
        return TensorChange(names, types, (mine.shape, theirs.shape))
    before, after = a.value(name), b.value(other)
    if before is None or after is None:
        return None
    changed = not same_values(before, after)
    if not changed and name == other and mine.type == theirs.type:
        return None
    largest, snr = differ(before, after) if changed else (0.0, math.inf)
    if largest == 0 and mine.type == theirs.type:  # −0 and 0, or another NaN
        changed = False
        if name == other:
            return None
    return TensorChange(names, types, (mine.shape, theirs.shape), changed, largest, snr)


def _partners(
    a: Wiring,
    b: Wiring,
    pairing: Pairing,
    first: dict[str, Stored],
    second: dict[str, Stored],
) -> dict[str, str]:
    """By what paired nodes read in the same place; then by name; unread ones by their values."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for i, j in pairing.nodes.items():
        makes = [(x, y) for x, y in zip(a.nodes[i].output, b.nodes[j].output, strict=False)]
        reads = [(x, y) for x, y in zip(a.nodes[i].input, b.nodes[j].input, strict=False)]
        for x, y in (*makes, *reads):
            if x in first and y in second and x not in found and y not in taken:
                found[x] = y
                taken.add(y)
    for name in first:
        if name in second and name not in found and name not in taken:
            found[name] = name
            taken.add(name)
    # What no node reads has nothing but its values.
    left: dict[str, list[str]] = {}
    for name in _unread(b, second.keys() - taken):
        left.setdefault(_content(b, name), []).append(name)
    for name in _unread(a, first.keys() - found.keys()):
        if alike := left.get(_content(a, name)):
            found[name] = alike.pop(0)
    return found


def _unread(wiring: Wiring, names: Set[str]) -> list[str]:
    read = {name for node in wiring.nodes for name in node.input}
    return sorted(names - read)


def _content(wiring: Wiring, name: str) -> str:
    """Type, shape and a hash of the values."""
    value = wiring.value(name)
    if value is None:
        return name
    return f"{value.dtype} {value.shape} {digest(value)}"


def _type(stored: Stored) -> str:
    name: str = TensorProto.DataType.Name(stored.type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
