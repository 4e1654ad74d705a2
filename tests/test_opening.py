"""Models are checked when they are opened: once on their way from a file to a verb, else always."""

import onnx
import pytest
from click.testing import CliRunner

import onnx_esn
from onnx_esn.cli import cli
from onnx_esn.errors import ModelError
from onnx_esn.verbs import opening
from tests.models import MODELS


@pytest.fixture
def checked(monkeypatch):
    """The models that were checked."""
    seen = []

    def check(model, name):
        seen.append(model)
        original(model, name)

    original = opening.check_model
    monkeypatch.setattr(opening, "check_model", check)
    return seen


def test_a_file_is_checked_once(tmp_path, checked):
    path = tmp_path / "model.onnx"
    onnx.save(MODELS["chain"].build(), path)
    onnx_esn.annotate(path)
    assert len(checked) == 1
    arguments = ["prune", str(path), "-o", str(tmp_path / "out.onnx"), "--ratio", "0.3"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert len(checked) == 2


def test_a_model_is_checked_each_time(tmp_path, checked):
    model = MODELS["chain"].build()
    onnx_esn.annotate(model)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match="nowhere"):
        onnx_esn.annotate(model)
    assert len(checked) == 2


def test_another_model_than_the_one_handed_on_is_checked(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(MODELS["chain"].build(), path)
    handed = opening.opened(path, hand_on=True)
    other = MODELS["residual"].build()
    other.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match="nowhere"):
        opening.opened(other)
    handed.graph.node[0].input[0] = "nowhere"  # by then it is a model like any other
    with pytest.raises(ModelError, match="nowhere"):
        opening.opened(handed)
