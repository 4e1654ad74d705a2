"""onnx-esn: make exported ONNX CNNs cheap without labels, training code or a framework.

The verbs are functions: `inspect`, `prune`, `recalibrate`, `quantize`, `convert`, `equalize`,
`rotate`, `annotate`, `compress`, `evaluate`, `compare`, `analyze`, `trace`, `sweep`. The pass
objects behind them are `Prune`, `Recalibrate`, `Quantize`, `QuantizeActivations`, `Export`,
`Annotate` and `Sequential`. Everything is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onnx_esn.version import __version__

if TYPE_CHECKING:
    from onnx_esn.evaluation import Comparison as Comparison
    from onnx_esn.evaluation import evaluate as evaluate
    from onnx_esn.evaluation.analysis import ModelAnalysis as ModelAnalysis
    from onnx_esn.evaluation.analysis import analyze as analyze
    from onnx_esn.evaluation.difference import Difference as Difference
    from onnx_esn.evaluation.difference import compare as compare
    from onnx_esn.evaluation.trajectory import Trace as Trace
    from onnx_esn.evaluation.trajectory import trace as trace
    from onnx_esn.passes.activations.quantizing import QuantizeActivations as QuantizeActivations
    from onnx_esn.passes.annotation import Annotate as Annotate
    from onnx_esn.passes.base import PassResult as PassResult
    from onnx_esn.passes.base import Sequential as Sequential
    from onnx_esn.passes.base import Skipped as Skipped
    from onnx_esn.passes.correcting.recalibration import Recalibrate as Recalibrate
    from onnx_esn.passes.export import Export as Export
    from onnx_esn.passes.inspecting.inspection import Inspection as Inspection
    from onnx_esn.passes.inspecting.inspection import inspect as inspect
    from onnx_esn.passes.profiling.assembly import Profile as Profile
    from onnx_esn.passes.profiling.profile import profile as profile
    from onnx_esn.passes.pruning.prune import Prune as Prune
    from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters as RemoveZeroFilters
    from onnx_esn.passes.quantizing.quantization import Quantize as Quantize
    from onnx_esn.pipeline import CompressionResult as CompressionResult
    from onnx_esn.pipeline import compress as compress
    from onnx_esn.plans import LatencyModel as LatencyModel
    from onnx_esn.plans import PruningPlan as PruningPlan
    from onnx_esn.plans import PruningRatios as PruningRatios
    from onnx_esn.plans import QuantizationPlan as QuantizationPlan
    from onnx_esn.search.sweep import sweep as sweep
    from onnx_esn.verbs import annotate as annotate
    from onnx_esn.verbs import convert as convert
    from onnx_esn.verbs import equalize as equalize
    from onnx_esn.verbs import prune as prune
    from onnx_esn.verbs import quantize as quantize
    from onnx_esn.verbs import recalibrate as recalibrate
    from onnx_esn.verbs import rotate as rotate
    from onnx_esn.verbs import write_model as write_model


_HOME = {
    "Comparison": "evaluation",
    "evaluate": "evaluation",
    "ModelAnalysis": "evaluation.analysis",
    "analyze": "evaluation.analysis",
    "Difference": "evaluation.difference",
    "compare": "evaluation.difference",
    "Trace": "evaluation.trajectory",
    "trace": "evaluation.trajectory",
    "Annotate": "passes.annotation",
    "Export": "passes.export",
    "PassResult": "passes.base",
    "Sequential": "passes.base",
    "Skipped": "passes.base",
    "Inspection": "passes.inspecting.inspection",
    "inspect": "passes.inspecting.inspection",
    "Profile": "passes.profiling.assembly",
    "profile": "passes.profiling.profile",
    "Prune": "passes.pruning.prune",
    "RemoveZeroFilters": "passes.pruning.zero_filters",
    "Quantize": "passes.quantizing.quantization",
    "QuantizeActivations": "passes.activations.quantizing",
    "Recalibrate": "passes.correcting.recalibration",
    "CompressionResult": "pipeline",
    "annotate": "verbs",
    "compress": "pipeline",
    "convert": "verbs",
    "equalize": "verbs",
    "prune": "verbs",
    "quantize": "verbs",
    "recalibrate": "verbs",
    "rotate": "verbs",
    "write_model": "verbs",
    "LatencyModel": "plans",
    "PruningPlan": "plans",
    "PruningRatios": "plans",
    "QuantizationPlan": "plans",
    "sweep": "search.sweep",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import onnx_esn` alone stays fast."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
