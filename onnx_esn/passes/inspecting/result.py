"""The result of `inspect`, and its JSON document (every field: docs/json.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.plans import PruningRatios

INSPECTION_SCHEMA = "onnx-esn/inspection/1"


@dataclass(frozen=True)
class LayerInspection:
    """One layer. Figures that need an unknown output shape are None.

    Attributes:
        name: name of its node, or of its output where nodes share a name or have none.
        op: Conv, ConvTranspose, Gemm or MatMul.
        weight: name of the weight.
        filters: number of filters.
        channels_in: channels it reads.
        channels_out: channels it writes, the same number as its filters.
        groups: groups of the convolution, else 1.
        kernel: kernel size; () for Gemm and MatMul.
        output_size: shape of the output without its batch and channels.
        macs: multiply-accumulates for one sample.
        parameters: number of weights, without bias.
        storage: type that its weights are stored in.
        storage_bits: width of that type.
        quantized: whether its weights lie on a grid, or are stored as integers.
        bits: number of filters by bits; all of them at `storage_bits` where not quantized.
        filter_bits: bits of each filter (in the JSON document only as `bits`).
        esn_a: Σ c·W_int², c = MACs per weight; None where not quantized.
        esn_d: Σ c·bits(W_int), in MAC·bit.
        esn_prime: Σ MACs(filter)·bits(max|W_int|), in MAC·bit: the cost that budgets are met in.
        esn_a_memory: Σ W_int²; None where not quantized.
        esn_d_memory: Σ bits(W_int), in bits.
        esn_prime_memory: Σ weights of the filter·bits(max|W_int|), in bits.
    """

    name: str
    op: str
    weight: str
    filters: int
    channels_in: int
    channels_out: int
    groups: int
    kernel: tuple[int, ...]
    output_size: tuple[int, ...] | None
    macs: int | None
    parameters: int
    storage: str
    storage_bits: int
    quantized: bool
    bits: Mapping[int, int]
    filter_bits: tuple[int, ...]
    esn_a: float | None
    esn_d: float | None
    esn_prime: float | None
    esn_a_memory: float | None
    esn_d_memory: float
    esn_prime_memory: float


@dataclass(frozen=True)
class Totals:
    """Sums over the layers; units as in `LayerInspection`.

    Attributes:
        layers: number of layers.
        quantized_layers: how many of them lie on a grid, or are stored as integers.
        macs: MACs for one sample, over the layers where they are known; a weight that two layers
            share counts twice …
        parameters: … and here once.
        initializer_bytes: bytes of all initializers as they are stored.
        bits_per_mac: ESN'_d / MACs, the mean width of a weight at work; None without MACs.
        bits_per_weight: the same in memory.
        esn_a: over the quantized layers; None where there is none.
        esn_d: over all layers.
        esn_prime: over all layers.
        esn_a_memory: as esn_a, each stored weight once.
        esn_d_memory: as esn_d, each stored weight once.
        esn_prime_memory: as esn_prime, each stored weight once.
    """

    layers: int
    quantized_layers: int
    macs: int
    parameters: int
    initializer_bytes: int
    bits_per_mac: float | None
    bits_per_weight: float | None
    esn_a: float | None
    esn_d: float
    esn_prime: float
    esn_a_memory: float | None
    esn_d_memory: float
    esn_prime_memory: float


@dataclass(frozen=True)
class Unresolved:
    """A node whose MACs are missing from the totals, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class MemberInspection:
    """A layer of a channel group, and how many of its filters the group holds."""

    node: str
    op: str
    filters: int
    depthwise: bool


@dataclass(frozen=True)
class LockInspection:
    """Why channels of a group must stay: the operator or tensor, and how many classes it locks."""

    reason: str
    classes: int


@dataclass(frozen=True)
class GroupInspection:
    """A channel group: channels that can only be removed together across its members.

    Attributes:
        name: name of its first layer.
        members: its layers.
        width: classes of channels it has; a class goes or stays as a whole.
        prunable: how many of them can be removed.
        reason: why none can, or "".
        prunable_filters: filters of all members in the classes that can be removed: what a ratio
            refers to.
        granularity: filters of one layer that a class holds, at most: 1 where they can go one by
            one, 4 where only four at a time.
        macs: MACs that the model would have less without any of its channels, locked ones
            included: those of its members, and those that read them.
        share: macs / the model's MACs. A layer counts for the group of its filters and for that of
            the channels it reads, so the shares add up to more than 1.
        locks: why classes must stay, the commonest reason first.
    """

    name: str
    members: tuple[MemberInspection, ...]
    width: int
    prunable: int
    reason: str
    prunable_filters: int
    granularity: int
    macs: int
    share: float | None
    locks: tuple[LockInspection, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a model costs.

    Attributes:
        input_shapes: the shape each input was given.
        layers: its layers, in graph order.
        totals: their sums.
        unresolved: what the totals lack.
        groups: the channel groups, or None where they were not asked for.
    """

    input_shapes: Mapping[str, tuple[int, ...]]
    layers: tuple[LayerInspection, ...]
    totals: Totals
    unresolved: tuple[Unresolved, ...]
    groups: tuple[GroupInspection, ...] | None

    def ratios(self) -> PruningRatios:
        """A start for ratios by hand: every layer that can lose filters, group by group, at 0."""
        free = (group for group in self.groups or () if group.prunable)
        return PruningRatios({m.node: 0.0 for group in free for m in group.members}, 0.0)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document; it says nothing of where or how the model is stored."""
        layers = []
        for layer in self.layers:
            entry = dict(vars(layer))
            del entry["filter_bits"]
            entry["bits"] = {str(bits): count for bits, count in layer.bits.items()}
            layers.append(entry)
        document = {
            "schema": INSPECTION_SCHEMA,
            "input_shapes": dict(self.input_shapes),
            "layers": layers,
            "totals": asdict(self.totals),
            "unresolved": [asdict(x) for x in self.unresolved],
        }
        if self.groups is not None:
            document["groups"] = [asdict(g) for g in self.groups]
        plain: dict[str, Any] = json_ready(document)
        return plain


def json_ready(value: Any) -> Any:
    """Return the value with lists for tuples, whole floats as integers, None for inf and NaN."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else value
    return value


def to_json(document: Any) -> str:
    """Return a document as one line of JSON."""
    return json.dumps(json_ready(document), ensure_ascii=False, allow_nan=False)
