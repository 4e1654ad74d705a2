"""Run models for the tests of formats: at every optimization level, outputs by name."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def run(model, feeds, level="all"):
    """Outputs by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def worst_difference(expected, got):
    """The largest difference relative to the largest value, over all outputs."""
    assert expected.keys() == got.keys()
    worst = 0.0
    for name, value in expected.items():
        peak = float(np.abs(value).max())
        assert peak > 0
        worst = max(worst, float(np.abs(got[name] - value).max()) / peak)
    return worst
