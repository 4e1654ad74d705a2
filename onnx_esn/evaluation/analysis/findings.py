"""What an analysis found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_esn.passes.analysis.channels import ChannelAnalysis
from onnx_esn.passes.analysis.outputs import OutputAnalysis
from onnx_esn.passes.analysis.tensors import TensorAnalysis
from onnx_esn.passes.base import Skipped


@dataclass(frozen=True)
class Findings:
    """Pruning against quantization in one model.

    Attributes:
        name: of the model.
        tensors: its weights, in graph order.
        outputs: what layers' outputs lose, by layer name; empty without images.
        channels: its channel groups at equal ESN'_d; empty without images.
        model_channels: all widths and bits together; None without images.
        skipped: what is not in the figures, and why.
        images: name of the set, or None.
        samples: how many.
        seed: of everything that was drawn.
    """

    name: str
    tensors: tuple[TensorAnalysis, ...]
    outputs: Mapping[str, OutputAnalysis]
    channels: tuple[ChannelAnalysis, ...]
    model_channels: ChannelAnalysis | None
    skipped: tuple[Skipped, ...]
    images: str | None = None
    samples: int = 0
    seed: int = 0
