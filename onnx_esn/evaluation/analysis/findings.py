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
    """What `ModelAnalysis` holds; its attributes are explained there."""

    name: str
    tensors: tuple[TensorAnalysis, ...]
    outputs: Mapping[str, OutputAnalysis]
    channels: tuple[ChannelAnalysis, ...]
    model_channels: ChannelAnalysis | None
    skipped: tuple[Skipped, ...]
    images: str | None = None
    samples: int = 0
    seed: int = 0
