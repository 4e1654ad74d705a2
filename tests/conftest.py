"""Settings shared by all tests: the same examples at every run, no time limit per example."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "onnx-esn",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("onnx-esn")
