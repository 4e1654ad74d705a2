"""Settings shared by all tests: the same examples at every run, no time limit per example."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings

from tests.models import MODELS

settings.register_profile(
    "onnx-esn",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("onnx-esn")

# By default the many tiny graphs of these modules only meet the tests of the rewriting itself.
RARE = ("attention", "families", "files", "heads", "operators", "quantized")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what else is tried on them as slow."""
    for item in items:
        params = getattr(item, "callspec", None)
        name = params.params.get("name") if params else None
        if item.path.name == "test_rewriting.py" or name not in MODELS:
            continue
        if MODELS[name].build.__module__.removeprefix("tests.models_") in RARE:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _logs_untouched():
    """Undo what commands that ran in this process did to the package's logger."""
    logger = logging.getLogger("onnx_esn")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
