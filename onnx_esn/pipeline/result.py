"""What `compress` returns."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.evaluation import Comparison
from onnx_esn.passes.base import PassResult

Stage = tuple[str, PassResult]


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` returns.

    Attributes:
        model: the compressed model.
        stages: (name, result) of each pass, in order. Of a large model given by its path, their
            models leave weights in files that go when the process ends; `model` holds its own.
        evaluation: the input model and the compressed one side by side, on held-out images; None
            where there are too few images to hold any out.
        held: these images, or None.
    """

    model: onnx.ModelProto
    stages: tuple[Stage, ...]
    evaluation: Comparison | None
    held: CalibrationSet | None = None

    @property
    def pruning(self) -> tuple[Stage, ...]:
        """The stages before `quantize`, which another bit width can take over."""
        names = [name for name, _ in self.stages]
        return self.stages[: names.index("quantize")]
