"""onnx-esn's passes in workflows of Olive, run by Olive itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.external_data_helper import uses_external_data

import onnx_esn
from tests.net import Net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Olive's own, and those of what it imports
    olive = pytest.importorskip("olive")
    from olive.exception import OlivePassError
    from olive.model import ONNXModelHandler, PyTorchModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.workflows import run

    from onnx_esn.integrations import olive as passes

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("quiet"),
]
ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration" / "fashion-mnist"
CPU = {
    "type": "LocalSystem",
    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
}


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    """No telemetry; its caches go where the test's files go."""
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(tmp_path):
    """A convolution, a fully connected layer, and 12 samples for them."""
    net = Net(3, 6, 6)
    model = net.model(net.head(net.relu(net.conv("x", 3, 24)), 24, 5))
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    samples = np.random.default_rng(0).normal(size=(12, 3, 6, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", samples)
    return path


def workflow(model, folder, steps, **more):
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "passes": steps,
        "target": CPU,
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        **more,
    }


def made(cls, source, folder, **config):
    handler = ONNXModelHandler(str(source))
    return create_pass_from_dict(cls, config, disable_search=True).run(handler, str(folder / "out"))


def bits_of(path):
    return {bits for layer in onnx_esn.inspect(path).layers for bits in layer.bits}


def test_the_example_runs_as_it_is_written(tmp_path):
    for name in ("examples", "calibration"):
        (tmp_path / name).symlink_to(ROOT / name)
    config = json.loads((ROOT / "examples" / "olive_workflow.json").read_text(encoding="utf-8"))
    run(
        {**config, "cache_dir": "cache"},
        package_config=json.loads((ROOT / "examples" / "olive_passes.json").read_text("utf-8")),
    )
    before, after = (
        onnx_esn.inspect(p) for p in (SAMPLE, tmp_path / "olive-output" / "model.onnx")
    )
    assert after.totals.macs < 0.8 * before.totals.macs
    assert bits_of(tmp_path / "olive-output" / "model.onnx") <= {1, 2, 3, 4}


def test_the_example_package_config_is_that_of_the_function():
    own = json.loads((ROOT / "examples" / "olive_passes.json").read_text(encoding="utf-8"))
    made = passes.package_config()["passes"]
    assert {name: made[name] for name in own["passes"]} == own["passes"]
    assert len(made) > len(own["passes"])  # Olive's own are there as well


def test_before_one_of_olives_own_passes(small, tmp_path):
    steps = {
        "quantize": {"type": "OnnxEsnQuantize", "bits": 3},
        "fp16": {"type": "OnnxFloatToFloat16"},
    }
    run(workflow(small, tmp_path, steps), package_config=passes.package_config())
    types = {t.data_type for t in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types


@pytest.mark.parametrize("stored", [{"format": "qdq"}, {"activations": "uint8"}])
def test_a_pass_gives_what_the_function_gives(small, tmp_path, stored):
    images = str(tmp_path / "x.npy")
    options = {"bits": 3, "images": images, **stored}
    written = made(passes.OnnxEsnQuantize, small, tmp_path, **options)
    assert onnx.load(written.model_path) == onnx_esn.quantize(small, **options).model


def test_olives_data_in_place_of_images(small, tmp_path):
    rows = np.random.default_rng(1).normal(size=(7, 3, 6, 6)).astype(np.float32)
    script = tmp_path / "data.py"
    np.save(tmp_path / "rows.npy", rows)
    script.write_text(
        "import numpy as np\n"
        "from olive.data.registry import Registry\n"
        "@Registry.register_dataset()\n"
        "def rows_of(path, **_):\n"
        "    return [({'x': row}, 0) for row in np.load(path)]\n",
        encoding="utf-8",
    )
    data = {
        "name": "rows",
        "user_script": str(script),
        "load_dataset_config": {"type": "rows_of", "params": {"path": str(tmp_path / "rows.npy")}},
        "dataloader_config": {"params": {"batch_size": 3}},
    }
    written = made(passes.OnnxEsnQuantize, small, tmp_path, bits=3, data_config=data, max_samples=5)
    assert onnx.load(written.model_path) == onnx_esn.quantize(small, bits=3, images=rows[:5]).model
    with pytest.raises(ValueError, match="one of images and data_config"):
        made(
            passes.OnnxEsnQuantize,
            small,
            tmp_path,
            bits=3,
            data_config=data,
            images=str(tmp_path / "x.npy"),
        )


def test_a_search_over_bits(small, tmp_path):
    metric = {
        "name": "latency",
        "type": "latency",
        "sub_types": [{"name": "avg", "priority": 1}],
        "data_config": "dummy",
    }
    shapes = {"input_names": ["x"], "input_shapes": [[1, 3, 6, 6]], "max_samples": 2}
    config = workflow(
        small,
        tmp_path,
        {"quantize": {"type": "OnnxEsnQuantize", "bits": [2, 5]}},
        data_configs=[
            {
                "name": "dummy",
                "type": "DummyDataContainer",
                "load_dataset_config": {"params": shapes},
            }
        ],
        evaluators={"speed": {"type": "OnnxEvaluator", "metrics": [metric]}},
        evaluator="speed",
        search_strategy={"execution_order": "joint", "sampler": "sequential"},
    )
    run(config, package_config=passes.package_config())
    found = [bits_of(p) for p in (tmp_path / "cache").rglob("*.onnx")]
    assert {2} in found
    assert {5} in found


def test_weights_outside_the_file_stay_outside(small, tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    onnx_esn.write_model(onnx.load(small), folder / "m.onnx", small, external_data=True)
    for name, given, outside in (("a", {}, True), ("b", {"external_data": False}, False)):
        written = made(passes.OnnxEsnPrune, folder / "m.onnx", tmp_path / name, ratio=0.3, **given)
        stored = onnx.load(written.model_path, load_external_data=False).graph.initializer
        assert any(uses_external_data(t) for t in stored) == outside
        own = onnx_esn.prune(folder / "m.onnx", ratio=0.3).model.SerializeToString()
        x = np.load(tmp_path / "x.npy")
        outputs = [
            ort.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for m in (written.model_path, own)
        ]
        np.testing.assert_array_equal(*outputs)


def test_compress_needs_images_and_takes_them(small, tmp_path):
    with pytest.raises(ValueError, match="OnnxEsnCompress needs images"):
        made(passes.OnnxEsnCompress, small, tmp_path, bits=3)
    images = str(tmp_path / "x.npy")
    written = made(passes.OnnxEsnCompress, small, tmp_path, target_cost="12%", images=images)
    asked = onnx_esn.inspect(small).totals.esn_prime * 0.12
    assert 0 < onnx_esn.inspect(written.model_path).totals.esn_prime <= asked


def test_what_went_wrong_is_said_in_olives_terms(small, tmp_path):
    with pytest.raises(ValueError, match="bits"):
        made(passes.OnnxEsnQuantize, small, tmp_path, bits=30)
    with pytest.raises(OlivePassError, match="cost"):
        made(passes.OnnxEsnQuantize, small, tmp_path, target_cost=1)
    other = PyTorchModelHandler(model_path=str(small), model_loader=lambda path: path)
    step = create_pass_from_dict(passes.OnnxEsnPrune, {"ratio": 0.3}, disable_search=True)
    with pytest.raises(ValueError, match="takes ONNX models, not a PyTorchModelHandler"):
        step.run(other, str(tmp_path / "out"))
