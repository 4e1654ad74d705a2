"""What a pruning removes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader, write_document

PRUNING_SCHEMA = "onnx-esn/pruning-plan/1"
MOST_IN_A_ROW = 100  # prunings one after the other in one plan
_FIELDS = ("schema", "slices", "groups", "folded_constants", "merged", "then")


@dataclass(frozen=True)
class SliceEntry:
    """Indices to remove from one axis of one initializer.

    Attributes:
        tensor: name of the initializer.
        axis: axis of the initializer.
        removed: indices, ascending.
        users: nodes this holds for when others keep reading the whole tensor; empty: all.
    """

    tensor: str
    axis: int
    removed: tuple[int, ...]
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupEntry:
    """What happened to one channel group, for people: `slices` is what is replayed.

    Attributes:
        name: name of the group's first layer.
        members: its layers.
        width: classes it had.
        kept: classes it keeps.
        reason: why none of it could be removed, or "".
    """

    name: str
    members: tuple[str, ...]
    width: int
    kept: int
    reason: str = ""


@dataclass(frozen=True)
class FoldedConstant:
    """What removed channels still sent to a consumer, added to its bias.

    Attributes:
        node: name of the consumer.
        bias: added to its bias, one number per filter that is left.
    """

    node: str
    bias: tuple[float, ...]


@dataclass(frozen=True)
class MergedChannels:
    """Input channels of a layer that hold the same values: one takes over the others' weights.

    Attributes:
        node: name of the layer.
        axis: axis of its weight that counts input channels.
        into: for each merged channel, the index of the one that takes over.
        added: the merged channels, which go.
    """

    node: str
    axis: int
    into: tuple[int, ...]
    added: tuple[int, ...]


@dataclass(frozen=True)
class PruningPlan:
    """A pruning decision.

    Attributes:
        slices: what is removed; this is what is replayed, after `merged`.
        groups: what became of each channel group, for people.
        folded_constants: what is added to biases.
        merged: weights that are added up first.
        then: the plan of a second pruning, which speaks of the result of this one.
    """

    slices: tuple[SliceEntry, ...]
    groups: tuple[GroupEntry, ...] = ()
    folded_constants: tuple[FoldedConstant, ...] = ()
    merged: tuple[MergedChannels, ...] = ()
    then: PruningPlan | None = None

    def to_json(self) -> str:
        """One JSON document, a line per entry."""
        lists = {
            "slices": [_compact(asdict(s), "users") for s in self.slices],
            "groups": [_compact(asdict(g), "reason") for g in self.groups],
            "folded_constants": [asdict(f) for f in self.folded_constants],
        }
        if self.merged:
            lists["merged"] = [asdict(m) for m in self.merged]
        nested = {} if self.then is None else {"then": self.then.to_json()}
        return write_document(PRUNING_SCHEMA, lists, nested)


def read_pruning(document: Mapping[str, Any], read: Reader) -> PruningPlan:
    """Build the plan from a parsed document; raises `PlanError`."""
    _check_depth(document, read)
    return _plan(document, read)


def _plan(document: Mapping[str, Any], read: Reader) -> PruningPlan:
    read.known(document, _FIELDS)
    then = document.get("then")
    if then is not None and not isinstance(then, Mapping):
        raise PlanError(f"{read.where}: 'then' must be a plan")
    return PruningPlan(
        tuple(
            SliceEntry(
                read.text(s, "tensor"),
                read.integer(s, "axis"),
                tuple(sorted(set(read.integers(s, "removed")))),
                read.texts(s, "users"),
            )
            for s in read.entries(document, "slices", required=True)
        ),
        tuple(
            GroupEntry(
                read.text(g, "name"),
                read.texts(g, "members"),
                read.integer(g, "width"),
                read.integer(g, "kept"),
                str(g.get("reason", "")),
            )
            for g in read.entries(document, "groups")
        ),
        tuple(
            FoldedConstant(read.text(f, "node"), read.numbers(f, "bias"))
            for f in read.entries(document, "folded_constants")
        ),
        tuple(
            MergedChannels(
                read.text(m, "node"),
                read.integer(m, "axis"),
                tuple(read.integers(m, "into")),
                tuple(read.integers(m, "added")),
            )
            for m in read.entries(document, "merged")
        ),
        None if then is None else _plan(then, Reader(f"{read.where}: then")),
    )


def _check_depth(document: Mapping[str, Any], read: Reader) -> None:
    """How deep Python itself reads and recurses differs from version to version."""
    plan: Any = document
    for _ in range(MOST_IN_A_ROW):
        plan = plan.get("then")
        if not isinstance(plan, Mapping):
            return
    raise PlanError(f"{read.where}: more than {MOST_IN_A_ROW} plans, each in 'then' of the other")


def _compact(entry: dict[str, Any], optional: str) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != optional or v}
