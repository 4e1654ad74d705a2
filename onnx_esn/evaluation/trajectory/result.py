"""What `trace` found, as data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.numerics.trajectory import LEAST_TRUSTED, EpochSums
from onnx_esn.plans.bit_policy import BitPolicy, LayerBits

SCHEMA = "onnx-esn/trace/1"
TOTAL = "total"


@dataclass(frozen=True)
class Moved:
    """S, N and ESN_a of a layer, or of all, in one epoch.

    Attributes:
        weights: n.
        signal: S, summed over the samples.
        noise: N, likewise.
        esn_a: eq. (4), n/12 · S/N; of all layers their sum. None where a layer did not move.
    """

    weights: int
    signal: float
    noise: float
    esn_a: float | None

    @property
    def per_weight(self) -> float | None:
        """ESN_a a weight."""
        return None if self.esn_a is None or not self.weights else self.esn_a / self.weights

    @property
    def trusted(self) -> bool:
        """Whether the noise is as fine as eq. (4) supposes, that of about 2.5 bits."""
        return self.per_weight is None or self.per_weight >= LEAST_TRUSTED


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch: its number.
        samples: checkpoints within it, its end included.
        layers: by name.
        accuracy: as given, or None.
    """

    epoch: int
    samples: int
    layers: dict[str, Moved]
    accuracy: float | None = None

    @property
    def total(self) -> Moved:
        """All layers."""
        parts = list(self.layers.values())
        known = [x.esn_a for x in parts if x.esn_a is not None]
        return Moved(
            sum(x.weights for x in parts),
            sum(x.signal for x in parts),
            sum(x.noise for x in parts),
            sum(known) if len(known) == len(parts) else None,
        )


@dataclass(frozen=True)
class LayerPolicy:
    """The bits that bring a layer's ESN_a back to its value at an epoch.

    Attributes:
        layer, weight: its name, and that of its weight.
        bits: 1 … 8.
        target: its ESN_a at that epoch.
        counted: Σ W_int² of its codes at these bits.
        estimated: eq. (4) of the quantization noise; None without noise.
    """

    layer: str
    weight: str
    bits: int
    target: float
    counted: float
    estimated: float | None

    @property
    def trusted(self) -> bool:
        """Whether eq. (4) holds at so many bits: from 3 on."""
        return self.bits > 2


@dataclass(frozen=True)
class Trace:
    """A training in terms of ESN_a.

    Attributes:
        epochs: those with a known start, in order.
        policy_epoch: the one that the policy is for, None without epochs.
        policy: bits of each layer that moved in it.
        notes: what is missing and why.
    """

    epochs: tuple[Epoch, ...]
    policy_epoch: int | None
    policy: tuple[LayerPolicy, ...]
    notes: tuple[str, ...] = ()

    def bit_policy(self) -> BitPolicy:
        """What `quantize --policy` reads."""
        return BitPolicy(tuple(LayerBits(x.layer, x.bits) for x in self.policy))

    def to_document(self) -> dict[str, Any]:
        """JSON-ready."""
        policy = [{**asdict(x), "trusted": x.trusted} for x in self.policy]
        return {
            "schema": SCHEMA,
            "epochs": [_epoch(x) for x in self.epochs],
            "policy": None
            if self.policy_epoch is None
            else {"epoch": self.policy_epoch, "layers": policy},
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """A line for each epoch and layer, and one for all layers of each epoch."""
        stream = io.StringIO()
        fields = ("epoch", "layer", "weights", "samples", "signal", "noise", "esn_a", "accuracy")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(fields)
        for epoch in self.epochs:
            for name, moved in _rows(epoch):
                values = (moved.weights, epoch.samples, moved.signal, moved.noise, moved.esn_a)
                row = (epoch.epoch, name, *values, epoch.accuracy)
                writer.writerow(["" if cell is None else cell for cell in row])
        return stream.getvalue()


def moved(sums: EpochSums) -> Moved:
    """The sums of a layer, finished."""
    return Moved(sums.weights, sums.signal, sums.noise, sums.esn_a)


def _rows(epoch: Epoch) -> Iterator[tuple[str, Moved]]:
    yield from epoch.layers.items()
    yield TOTAL, epoch.total


def _epoch(epoch: Epoch) -> dict[str, Any]:
    layers: Sequence[dict[str, Any]] = [
        {"layer": name, **_figures(x)} for name, x in epoch.layers.items()
    ]
    head = {"epoch": epoch.epoch, "samples": epoch.samples, "accuracy": epoch.accuracy}
    return {**head, **_figures(epoch.total), "layers": layers}


def _figures(moved: Moved) -> dict[str, Any]:
    return {**asdict(moved), "trusted": moved.trusted}
