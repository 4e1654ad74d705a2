"""Settings shared by all tests: the same examples at every run, no time limit per example."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, settings

from onnx_esn import prune
from tests.models import MODELS

ROOT = Path(__file__).parents[1]

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


@pytest.fixture(scope="session")
def forty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with forty of the sample model's calibration images."""
    folder, source = tmp_path_factory.mktemp("few"), ROOT / "calibration" / "fashion-mnist"
    for file in [source / "recipe.toml", *sorted((source / "images").iterdir())[:40]]:
        (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


@pytest.fixture(scope="session")
def few(forty: str) -> str:
    """Calibration images for the sample model, so few that tests stay quick."""
    return forty


@pytest.fixture(scope="session")
def slim(tmp_path_factory: pytest.TempPathFactory, forty: str) -> str:
    """The sample model at a quarter of its widths: compensated codes take a fifth of the time."""
    path = tmp_path_factory.mktemp("slim") / "slim.onnx"
    model = prune(ROOT / "examples" / "fashion_resnet.onnx", ratio=0.75, images=forty).model
    del model.metadata_props[:]  # nothing shall know where it comes from
    onnx.save(model, path)
    return str(path)
