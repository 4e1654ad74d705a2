"""Plans: decisions as data, JSON in, JSON out: to be read, edited and replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from onnx_esn.errors import PlanError

PRUNING_SCHEMA = "onnx-esn/pruning-plan/1"
QUANTIZATION_SCHEMA = "onnx-esn/quantization-plan/1"


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
class PruningPlan:
    """A pruning decision."""

    slices: tuple[SliceEntry, ...]
    groups: tuple[GroupEntry, ...] = ()
    folded_constants: tuple[FoldedConstant, ...] = ()

    def to_json(self) -> str:
        """One JSON document, a line per entry."""
        lists = {
            "slices": [_compact(asdict(s), "users") for s in self.slices],
            "groups": [_compact(asdict(g), "reason") for g in self.groups],
            "folded_constants": [asdict(f) for f in self.folded_constants],
        }
        return _dump(PRUNING_SCHEMA, lists)


@dataclass(frozen=True)
class LayerQuantization:
    """Bits and step size of each filter of one layer.

    Attributes:
        layer: name of the layer's node.
        bits: 0..8 per filter; 0 means that the filter is pruned (all codes 0).
        step: step size Δ per filter; 0 where bits are 0.
    """

    layer: str
    bits: tuple[int, ...]
    step: tuple[float, ...]


@dataclass(frozen=True)
class QuantizationPlan:
    """A quantization decision."""

    layers: tuple[LayerQuantization, ...]
    excluded: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """One JSON document, a line per layer."""
        lists: dict[str, list[Any]] = {
            "layers": [asdict(x) for x in self.layers],
            "excluded": list(self.excluded),
        }
        return _dump(QUANTIZATION_SCHEMA, lists)


Plan = PruningPlan | QuantizationPlan
_P = TypeVar("_P", PruningPlan, QuantizationPlan)


def load_plan(source: str | Path | _P, kind: type[_P]) -> _P:
    """Read a plan file of the expected kind; a plan object is returned as it is.

    Raises:
        PlanError: the file is missing, not JSON, of another kind, or a field is missing or wrong.
    """
    if isinstance(source, kind):
        return source
    path = Path(str(source))
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(f"{path}: no such plan file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PlanError(f"{path}: not a plan: {error}") from error
    return parse_plan(document, kind, str(path))


def parse_plan(document: Any, kind: type[_P], where: str = "plan") -> _P:
    """Build a plan from a parsed JSON document; raises `PlanError` naming the wrong field."""
    if not isinstance(document, Mapping):
        raise PlanError(f"{where}: a plan is a JSON object")
    schema = PRUNING_SCHEMA if kind is PruningPlan else QUANTIZATION_SCHEMA
    # A plan written by hand may leave the schema out.
    if document.get("schema", schema) != schema:
        raise PlanError(f"{where}: schema is {document['schema']!r}, expected {schema!r}")
    read = _Reader(where)
    if kind is PruningPlan:
        plan: Plan = PruningPlan(
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
        )
    else:
        plan = QuantizationPlan(
            tuple(
                LayerQuantization(
                    read.text(x, "layer"),
                    tuple(read.integers(x, "bits")),
                    read.numbers(x, "step"),
                )
                for x in read.entries(document, "layers", required=True)
            ),
            read.texts(document, "excluded"),
        )
    assert isinstance(plan, kind)
    return plan


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def entries(
        self, document: Mapping[str, Any], key: str, required: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        value = document.get(key)
        if value is None and not required:
            return []
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            raise PlanError(f"{self.where}: {key!r} must be a list of objects")
        return value

    def text(self, entry: Mapping[str, Any], key: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str):
            raise PlanError(f"{self.where}: {key!r} must be a string in {_short(entry)}")
        return value

    def texts(self, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise PlanError(f"{self.where}: {key!r} must be a list of strings in {_short(entry)}")
        return tuple(value)

    def integer(self, entry: Mapping[str, Any], key: str) -> int:
        value = entry.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise PlanError(f"{self.where}: {key!r} must be an integer from 0 in {_short(entry)}")
        return value

    def integers(self, entry: Mapping[str, Any], key: str) -> list[int]:
        value = entry.get(key)
        if not isinstance(value, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value
        ):
            raise PlanError(
                f"{self.where}: {key!r} must be a list of integers from 0 in {_short(entry)}"
            )
        return value

    def numbers(self, entry: Mapping[str, Any], key: str) -> tuple[float, ...]:
        value = entry.get(key)
        if not isinstance(value, list) or not all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300 for v in value
        ):
            raise PlanError(f"{self.where}: {key!r} must be a list of numbers in {_short(entry)}")
        return tuple(float(v) for v in value)


def _short(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry)
    return text if len(text) < 80 else text[:77] + "..."


def _compact(entry: dict[str, Any], optional: str) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != optional or v}


def _dump(schema: str, lists: Mapping[str, Sequence[Any]]) -> str:
    parts = [f'  "schema": {json.dumps(schema)}']
    for key, entries in lists.items():
        lines = ",\n".join("    " + json.dumps(e, ensure_ascii=False) for e in entries)
        parts.append(f'  "{key}": [\n{lines}\n  ]' if lines else f'  "{key}": []')
    return "{\n" + ",\n".join(parts) + "\n}\n"
