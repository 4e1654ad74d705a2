"""What differs between two models, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_esn.calibration import Latency
from onnx_esn.evaluation.comparison import OutputAgreement
from onnx_esn.passes.inspecting.result import LayerInspection, Totals


@dataclass(frozen=True)
class NodeChange:
    """A node that only one model has (the other side None), or that differs.

    Attributes:
        name: its name (its output's where that is empty or not unique) before, after.
        op: its operator before, after, with the domain in front where it is not ONNX's own.
        attributes: what differs: value before, after, None where it is absent; defaults filled in.
        inputs: slots that read another tensor: tensor before, after.
        passed: slots among these that read the same but for nodes that only pass it on, such as a
            BatchNormalization that was folded, or Quantize- and DequantizeLinear.
    """

    name: tuple[str | None, str | None]
    op: tuple[str | None, str | None]
    attributes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    inputs: Mapping[int, tuple[str | None, str | None]] = field(default_factory=dict)
    passed: tuple[int, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether more differs than the name, and the nodes that pass its inputs on."""
        other = self.op[0] != self.op[1] or bool(self.attributes)
        return other or len(self.inputs) > len(self.passed)


@dataclass(frozen=True)
class TensorChange:
    """A stored tensor that only one model has (the other side None), or that differs.

    Attributes:
        name: its name before, after.
        type: its element type before, after.
        shape: its shape before, after.
        changed: whether values differ; None where the shapes do, or a side is missing.
        max_abs: largest difference of two values; None where they cannot be subtracted.
        snr_db: 10·log10(Σbefore² / Σ(after − before)²); infinite where equal.
    """

    name: tuple[str | None, str | None]
    type: tuple[str | None, str | None]
    shape: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    changed: bool | None = None
    max_abs: float | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class LayerDifference:
    """A layer before and after; None on the side that does not have it.

    Attributes:
        before: its figures in the first model.
        after: its figures in the second model.
        removed: which of its filters are gone; None where nothing says which.
        weight_max_abs: largest difference of two weights as the layer reads them, of the filters
            that are left; None where the layers read different numbers of channels, or the
            normalization behind the layer was folded into one of them.
        weight_snr_db: the same as a signal-to-noise ratio.
        output_snr_db: that of its output on the images, normalization after it included, of the
            channels that are left; None where it was not measured.
        reason: why not, or "".
    """

    before: LayerInspection | None
    after: LayerInspection | None
    removed: tuple[int, ...] | None = None
    weight_max_abs: float | None = None
    weight_snr_db: float | None = None
    output_snr_db: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Its name in the first model that has it."""
        side = self.before or self.after
        return "" if side is None else side.name

    @property
    def changed(self) -> bool:
        """Whether its figures or its weights differ."""
        if self.before is None or self.after is None:
            return True
        a, b = self.before, self.after
        same = (a.filters, a.channels_in, a.groups, a.kernel, a.macs, a.storage, a.filter_bits) == (
            *(b.filters, b.channels_in, b.groups, b.kernel, b.macs, b.storage, b.filter_bits),
        )
        return not same or bool(self.weight_max_abs)


@dataclass(frozen=True)
class SettingChange:
    """Something about the model as a whole that differs: opset, IR version, metadata, inputs."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class OutputsDifference:
    """The outputs on the same samples.

    Attributes:
        images: name of the set.
        samples: number of samples.
        divergence: `numerics.agreement.divergence`; infinite where an output does not compare.
        outputs: agreement of each output.
        latency: of the two models, where it was asked for.
    """

    images: str
    samples: int
    divergence: float
    outputs: tuple[OutputAgreement, ...]
    latency: tuple[Latency, Latency] | None = None


@dataclass(frozen=True)
class ModelFigures:
    """A model as a whole: its name, nodes, totals (see `inspect`) and bytes on disk."""

    name: str
    nodes: int
    totals: Totals
    file_bytes: int


@dataclass(frozen=True)
class Changes:
    """What `Difference` holds; its attributes are explained there."""

    before: ModelFigures
    after: ModelFigures
    nodes: tuple[NodeChange, ...]
    tensors: tuple[TensorChange, ...]
    layers: tuple[LayerDifference, ...]
    settings: tuple[SettingChange, ...]
    outputs: OutputsDifference | None = None
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing at all differs between the files, names included."""
        return not (self.nodes or self.tensors or self.settings)
