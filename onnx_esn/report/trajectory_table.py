"""What `trace` found: a line for each epoch, then the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from .layout import cell, elide, grid, note
from .numbers import UNKNOWN, percent, si

_NAME = 30
_COARSE = "*"


def trace_table(document: Mapping[str, Any]) -> RenderableType:
    """A renderable for ``console.print`` from a document of `Trace`."""
    epochs, policy = document["epochs"], document["policy"]
    parts: list[RenderableType] = [_epochs(epochs)]
    parts.append(note("S, N: sums over the checkpoints of an epoch; ESN_a = Σ n/12 · S/N, eq. (4)"))
    if not all(x["trusted"] for x in epochs):
        parts.append(note(f"{_COARSE} coarser than about 2.5 bits, where eq. (4) is off"))
    if policy is not None and policy["layers"]:
        parts += [Text(), *_policy(policy)]
    elif policy is not None:
        what = "no layer that has weights other than 0 moved"
        parts.append(note(f"no bits: {what} in epoch {policy['epoch']}"))
    parts += [note(line) for line in document["notes"]]
    return Group(*parts)


def _epochs(epochs: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = grid("Weights and how far they moved")
    judged = any(x["accuracy"] is not None for x in epochs)
    for heading in ("epoch", "checkpoints", "S", "N", "ESN_a", "per weight"):
        table.add_column(heading, justify="right")
    if judged:
        table.add_column("accuracy", justify="right")
    for x in epochs:
        mark = "" if x["trusted"] else _COARSE
        each = x["esn_a"] / x["weights"] if x["esn_a"] and x["weights"] else None
        row = [str(x["epoch"]), str(x["samples"]), si(x["signal"]), si(x["noise"])]
        row += [si(x["esn_a"]), mark + si(each)]
        table.add_row(*row, *([percent(x["accuracy"])] if judged else []))
    return table


def _policy(policy: Mapping[str, Any]) -> list[RenderableType]:
    table = grid(f"Bits for the ESN_a of epoch {policy['epoch']}")
    table.add_column("layer", no_wrap=True)
    for heading in ("bits", "wanted", "counted", "eq. (4)", "off"):
        table.add_column(heading, justify="right")
    for x in policy["layers"]:
        off = x["estimated"] / x["counted"] - 1 if x["estimated"] and x["counted"] else None
        table.add_row(
            cell(elide(x["layer"], _NAME)),
            str(x["bits"]) + ("" if x["trusted"] else _COARSE),
            si(x["target"]),
            si(x["counted"]),
            si(x["estimated"]),
            UNKNOWN if off is None else f"{100 * off:+.1f} %".replace("-", "−"),
        )
    lines: list[RenderableType] = [table]
    lines.append(
        note("counted: Σ W_int² at these bits; off: what eq. (4) makes of their rounding noise")
    )
    if not all(x["trusted"] for x in policy["layers"]):
        lines.append(
            note(f"{_COARSE} below 2.5 bits eq. (4) does not hold; believe what is counted")
        )
    return lines
