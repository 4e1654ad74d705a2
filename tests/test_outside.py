"""Weights that stay in their file until they are asked for: every verb gives what it gave."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

import onnx_esn
from onnx_esn import outside, shelf
from onnx_esn.calibration import Session
from onnx_esn.calibration.streamed import stream_moments
from onnx_esn.errors import ModelError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.external_data import write_with_data
from onnx_esn.graph.model_file import initializer_bytes, load_model, save_model
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.working_copy import with_own_weights
from onnx_esn.passes.quantizing.quantizable import find_quantizable
from onnx_esn.search.fingerprint import fingerprint_model
from onnx_esn.temporary import process_folder
from tests.net import Net


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(outside, "_LEAST", 1 << 14)
    monkeypatch.setattr(shelf, "LEAST", 1 << 14)


@pytest.fixture(params=[np.float32, np.float16], ids=lambda kind: np.dtype(kind).name)
def path(request, tmp_path):
    """A model whose two large weights are in a file beside it; the small one is too."""
    net = Net(3, 8, 8, dtype=request.param)
    y = net.relu(net.conv(net.relu(net.conv("x", 3, 8)), 8, 128))
    model = net.model(net.gemm(net.op("Flatten", y), 128 * 64, 5))
    path = tmp_path / "m.onnx"
    write_with_data(model, path, tmp_path / "m.onnx.data")
    return path


def left(model):
    return [t.name for t in model.graph.initializer if outside.is_outside(t)]


def test_only_large_matrices_are_left_outside(path):
    inside, lean = load_model(path), load_model(path, outside=True)
    assert len(left(lean)) == 2
    assert left(inside) == []
    for a, b in zip(inside.graph.initializer, lean.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(a), outside.tensor_values(b))
        if b.name not in left(lean):
            assert not uses_external_data(b)
    assert initializer_bytes(inside) <= initializer_bytes(lean) < 1.1 * initializer_bytes(inside)


@pytest.mark.parametrize(
    "verb",
    [
        lambda m: onnx_esn.prune(m, ratio=0.3),
        lambda m: onnx_esn.prune(m, exact=True),
        lambda m: onnx_esn.quantize(m, bits=3),
        lambda m: onnx_esn.quantize(m, target_cost="10%"),
        lambda m: onnx_esn.quantize(m, bits=4, format="qdq"),
        lambda m: onnx_esn.annotate(m),
    ],
    ids=["prune", "exact", "bits", "budget", "qdq", "annotate"],
)
def test_verbs_give_the_same(path, tmp_path, verb):
    expected, found = (verb(load_model(path, outside=o)).model for o in (False, True))
    assert outside.brought_inside(found).graph.node == expected.graph.node
    save_model(expected, tmp_path / "expected.onnx", external=True)
    save_model(found, tmp_path / "found.onnx", external=True)
    a, b = (onnx.load(tmp_path / f"{name}.onnx") for name in ("expected", "found"))
    for x, y in zip(a.graph.initializer, b.graph.initializer, strict=True):
        assert (x.name, x.data_type, x.dims) == (y.name, y.data_type, y.dims)
        np.testing.assert_array_equal(numpy_helper.to_array(x), numpy_helper.to_array(y))


@pytest.mark.parametrize(
    "verb",
    [
        lambda m, x: onnx_esn.prune(m, ratio=0.3, images=x),
        lambda m, x: onnx_esn.quantize(m, bits=3, images=x),
        lambda m, x: onnx_esn.quantize(m, bits=3, method="nearest", images=x),
        lambda m, x: onnx_esn.recalibrate(onnx_esn.quantize(m, bits=1).model, x[:8], reference=m),
    ],
    ids=["prune", "compensated", "nearest", "recalibrate"],
)
def test_verbs_with_images_give_the_same(path, tmp_path, verb):
    images = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(kind_of(load_model(path)))
    expected, found = (verb(load_model(path, outside=o), images) for o in (False, True))
    assert expected.modified
    assert left(found.model)
    assert dict(expected.details) == dict(found.details)
    a, b = expected.model, outside.brought_inside(found.model)
    assert a.graph.node == b.graph.node
    for x, y in zip(a.graph.initializer, b.graph.initializer, strict=True):
        assert (x.name, x.data_type, x.dims) == (y.name, y.data_type, y.dims)
        np.testing.assert_array_equal(numpy_helper.to_array(x), numpy_helper.to_array(y))


def test_quantized_activations_are_the_same(path):
    if kind_of(load_model(path)) != np.float32:
        pytest.skip("activations are quantized in float32 alone")
    images = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)
    for calibrator in ("minmax", "percentile"):
        options = {"activations": "uint8", "calibrator": calibrator, "images": images}
        a, b = (
            onnx_esn.quantize(load_model(path, outside=o), bits=5, **options).model
            for o in (False, True)
        )
        assert a == outside.brought_inside(b)


def test_a_sweep_gives_the_same_figures(path, tmp_path):
    images = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(kind_of(load_model(path)))
    found = []
    for name, model in (("inside", load_model(path)), ("outside", path)):
        swept = onnx_esn.sweep(model, images, tmp_path / name, bits=[3], ratios=[0, 0.3])
        assert all(p.figures is not None for p in swept.points)
        found.append([p.figures for p in swept.points])
    for a, b in zip(*found, strict=True):
        assert b.file_bytes == pytest.approx(a.file_bytes, rel=1e-3)  # not written for it
        assert replace(b, file_bytes=a.file_bytes) == a


def test_the_key_of_a_sweep_is_that_of_the_weights(path):
    model = load_model(path, outside=True)
    before = fingerprint_model(model)
    assert fingerprint_model(load_model(path, outside=True)) == before
    data = path.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert fingerprint_model(model) != before


def test_the_trace_of_a_training_is_the_same(path, tmp_path):
    model = load_model(path)
    rng = np.random.default_rng(0)
    for number in range(2):
        for tensor in model.graph.initializer:
            W = numpy_helper.to_array(tensor)
            moved = (W + number * rng.normal(size=W.shape) / 100).astype(W.dtype)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
        for folder, external in (("inside", False), ("outside", True)):
            (tmp_path / folder).mkdir(exist_ok=True)
            save_model(model, tmp_path / folder / f"epoch_{number}.onnx", external=external)
    a, b = (onnx_esn.trace([tmp_path / folder]) for folder in ("inside", "outside"))
    assert a.policy
    assert a == b


def test_a_path_leaves_them_outside_and_gives_a_model_that_holds_them(path, monkeypatch):
    seen = []

    def spy(model, *args, **options):
        seen.append(left(model))
        return find_quantizable(model, *args, **options)

    monkeypatch.setattr("onnx_esn.passes.quantizing.quantization.find_quantizable", spy)
    expected = onnx_esn.quantize(load_model(path), bits=3).model
    found = onnx_esn.quantize(model=path, bits=3).model
    assert [len(names) for names in seen] == [0, 2]
    assert left(found) == []
    assert found == expected


def test_compress_of_a_path_leaves_them_outside_and_gives_a_model_that_holds_them(
    path, monkeypatch
):
    seen = []

    def spy(model, *args, **options):
        seen.append(left(model))
        return find_quantizable(model, *args, **options)

    monkeypatch.setattr("onnx_esn.passes.quantizing.quantization.find_quantizable", spy)
    images = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(kind_of(load_model(path)))
    results = [
        onnx_esn.compress(model, images, bits=3, method="nearest", latency=False)
        for model in (load_model(path), path)
    ]
    assert [len(names) for names in seen] == [0, 2]
    assert results[1].model == results[0].model
    assert results[1].stages[-1][1].model == results[0].model


def test_a_reference_given_by_its_path_stays_in_its_file(path, monkeypatch):
    """It is only looked at: `recalibrate` and `quantize` hand out nothing of it."""
    seen = []

    def spy(model, *args, **options):
        seen.append(left(model))
        return stream_moments(model, *args, **options)

    monkeypatch.setattr("onnx_esn.passes.correcting.recalibration.stream_moments", spy)
    source = load_model(path)
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(kind_of(source))
    rough = onnx_esn.quantize(source, bits=1).model
    onnx_esn.recalibrate(rough, images, reference=path)
    onnx_esn.quantize(source, bits=1, method="nearest", images=images, reference=path)
    assert [len(names) for names in seen] == [2, 2]


@pytest.mark.parametrize("external", [False, True])
def test_what_is_written_names_its_own_file_only(path, tmp_path, external):
    lean = load_model(path, outside=True)
    (tmp_path / "out").mkdir()
    written = save_model(lean, tmp_path / "out" / "n.onnx", external=external)
    stored = onnx.load(written, load_external_data=False).graph.initializer
    keys = {(e.key, e.value) for t in stored for e in t.external_data if e.key != "offset"}
    assert {k for k, _ in keys} == ({"location", "length"} if external else set())
    data = {p.name for p in written.parent.glob("n.onnx.*.data")}
    assert len(data) == external
    assert {v for k, v in keys if k == "location"} == data
    assert {p.name for p in written.parent.iterdir()} == {"n.onnx", *data}
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for tensor in onnx.load(written).graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), values[tensor.name])


def test_sessions_read_them(path):
    lean = load_model(path, outside=True)
    kind = (
        np.float32
        if onnx.TensorProto.DataType.Name(lean.graph.initializer[0].data_type) == "FLOAT"
        else np.float16
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(kind)
    expected = Session(path).run({"x": x})
    for options in ({}, {"lean": True}, {"outputs": [lean.graph.output[0].name]}):
        found = Session(lean, **options).run({"x": x})
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name], value, rtol=1e-3 if kind == np.float16 else 1e-5
            )


def test_models_with_weights_in_two_folders_run(path, tmp_path, monkeypatch):
    lean = load_model(path, outside=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "m.onnx.data").write_bytes((tmp_path / "m.onnx.data").read_bytes())
    tensor = next(t for t in lean.graph.initializer if outside.is_outside(t))
    next(e for e in tensor.external_data if e.key == "basepath").value = str(other)
    assert len(outside.folders(lean.graph.initializer)) == 2
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(kind_of(lean))}
    expected = Session(load_model(path)).run(feed)
    monkeypatch.delattr("onnx_esn.calibration.session.brought_inside")  # they are not loaded
    for name, value in Session(lean).run(feed).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_file_that_is_gone_or_short_is_named(path, tmp_path):
    lean = load_model(path, outside=True)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(
        ModelError, match=r"the weight 't\d' ends at byte \d+ of .*m\.onnx\.data: too short"
    ):
        load_model(path, outside=True)
    data.unlink()
    with pytest.raises(ModelError, match=r"m\.onnx\.data: no such file"):
        onnx_esn.quantize(lean, bits=3)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load_model(path, outside=True)


def test_what_is_made_of_large_weights_stays_outside(path):
    """Quantized weights go to a file too; what reads them need not know."""
    source = load_model(path, outside=True)
    before = {t.name: outside.tensor_values(t).copy() for t in source.graph.initializer}
    result = onnx_esn.quantize(source, bits=3).model
    assert left(result) == left(source) != []
    assert outside.folders(result.graph.initializer).isdisjoint(
        outside.folders(source.graph.initializer)
    )
    for tensor in source.graph.initializer:
        np.testing.assert_array_equal(outside.tensor_values(tensor), before[tensor.name])
    again = onnx_esn.quantize(result, bits=3)
    assert not again.modified


def test_a_part_of_the_weights_is_replaced(path):
    """Some tensors lie in the model's folder then, others in one for temporary files."""
    source = load_model(path, outside=True)
    name = onnx_esn.inspect(source).layers[0].name
    result = onnx_esn.quantize(source, bits=3, exclude=[name]).model
    inside = onnx_esn.quantize(load_model(path), bits=3, exclude=[name]).model
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(kind_of(source))}
    expected, found = Session(inside).run(feed), Session(result).run(feed)
    for output in expected:
        np.testing.assert_array_equal(expected[output], found[output])


def kind_of(model):
    return onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)


def test_equal_tensors_outside_are_stored_once(tmp_path):
    net = Net(8, 8, 8)
    w = np.random.default_rng(0).normal(size=(64, 64, 3, 3)).astype(np.float32)
    y = net.conv("x", 8, 64, 1)
    for _ in range(2):
        y = net.relu(net.op("Conv", y, net.store(w), pads=[1] * 4))
    model = onnx_esn.quantize(net.model(y), bits=3, only=[net.nodes[0].name]).model
    write_with_data(model, tmp_path / "m.onnx", tmp_path / "m.onnx.data")
    lean = load_model(tmp_path / "m.onnx", outside=True)
    assert len(left(lean)) == 2
    inside, outer = (onnx_esn.convert(m, format="qdq").model for m in (model, lean))
    assert outside.brought_inside(outer) == inside
    assert sum(list(t.dims) == [64, 64, 3, 3] for t in outer.graph.initializer) == 1


@pytest.mark.parametrize(
    ("stored", "most"), [pytest.param("fake", 2.0, marks=pytest.mark.slow), ("qdq", 2.4)]
)
def test_quantizing_takes_little_more_than_a_layer(tmp_path, stored, most):
    """Only blocks of filters are ever in float64, and neither input nor result in memory.

    A layer is half of this file, and all of a block counts: larger models take less.
    """
    net = Net(256, 1, 1)
    y = net.op("Flatten", "x")
    weights = np.random.default_rng(0).standard_normal((2, 4096, 4096), np.float32)
    y = net.gemm(y, 256, 4096)
    for w in weights:
        y = net.op("Gemm", y, net.store(w), transB=1)
    write_with_data(net.model(y), tmp_path / "m.onnx", tmp_path / "m.onnx.data")
    del net, weights, w
    size = (tmp_path / "m.onnx.data").stat().st_size
    tracemalloc.start()
    try:
        source = load_model(tmp_path / "m.onnx", outside=True)
        onnx_esn.quantize(source, bits=1, format=stored)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most * size


def test_recalibrating_takes_little_more_than_a_layer(tmp_path):
    """Scaled weights are made in blocks and go outside; the layers of this file are a half each."""
    net = Net(256, 1, 1)
    y = net.op("Flatten", "x")
    y = net.gemm(y, 256, 4096)
    for w in np.random.default_rng(0).standard_normal((2, 4096, 4096), np.float32) / 64:
        y = net.op("Gemm", y, net.store(w), transB=1)
    write_with_data(net.model(net.gemm(y, 4096, 5)), tmp_path / "m.onnx", tmp_path / "m.onnx.data")
    del net, w
    size = (tmp_path / "m.onnx.data").stat().st_size
    source = load_model(tmp_path / "m.onnx", outside=True)
    images = np.random.default_rng(1).standard_normal((4, 256, 1, 1), np.float32)
    tracemalloc.start()
    try:
        result = onnx_esn.recalibrate(source, images, reference=source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.modified
    assert left(result.model) == left(source) != []
    assert peak < 1.3 * size, peak / size


@pytest.mark.parametrize("moved", [False, True], ids=["stored", "transposed"])
def test_a_working_copy_refers_to_them(tmp_path, moved):
    """Weights that are computed from large ones go outside too, as they are read."""
    net = Net(64)
    w = net.weight(*((96, 64) if moved else (64, 96)), fan_in=64)
    w = net.op("Transpose", w, perm=[1, 0]) if moved else w
    write_with_data(net.model(net.op("MatMul", "x", w)), tmp_path / "m.onnx", tmp_path / "m.data")
    model = load_model(tmp_path / "m.onnx", outside=True)
    constants = Constants(model)
    layers = find_plain_layers(model)
    copy, slots = with_own_weights(model, constants, layers)
    (slot,) = slots.values()
    assert slot.weight in left(copy)
    np.testing.assert_array_equal(slot.W, constants.value(layers[0].weight))
    feed = {"x": np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)}
    (expected,), (found,) = (Session(m).run(feed).values() for m in (model, copy))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    rows = layers[0].as_filters(slot.W).astype(np.float64)
    same = slot.values(layers[0], rows, np.zeros(96))[slot.weight]
    np.testing.assert_array_equal(same, slot.W)


def test_an_array_waits_in_a_file_for_as_long_as_it_is_held():
    values = np.random.default_rng(0).normal(size=(64, 64))
    before = set(process_folder().iterdir())
    held = shelf.Shelved(values, outside=True)
    (file,) = set(process_folder().iterdir()) - before
    np.testing.assert_array_equal(held(), values)
    del held
    assert not file.exists()
    assert shelf.Shelved(values, outside=False)() is values
    assert shelf.Shelved(values[:2], outside=True)()[0, 0] == values[0, 0]
    assert set(process_folder().iterdir()) == before
