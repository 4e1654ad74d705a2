"""Ascending indices as a short list for JSON: long runs as text, `[0, 3, "5-40"]`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_LONG = 8  # indices of a run that is worth its own notation


def packed(indices: Sequence[int]) -> list[int | str]:
    """Return the indices with every run of eight or more as `"first-last"`."""
    entries: list[int | str] = []
    start = 0
    for i in range(1, len(indices) + 1):
        if i < len(indices) and indices[i] == indices[i - 1] + 1:
            continue
        run = indices[start:i]
        entries += [f"{run[0]}-{run[-1]}"] if len(run) >= _LONG else run
        start = i
    return entries


def unpacked(entries: Iterable[int | str]) -> list[int]:
    """Return the indices that `packed` was given; raises `ValueError` or `TypeError`."""
    indices: list[int] = []
    for entry in entries:
        if isinstance(entry, str):
            first, last = entry.split("-")
            indices += range(int(first), int(last) + 1)
        else:
            indices.append(int(entry))
    return indices
