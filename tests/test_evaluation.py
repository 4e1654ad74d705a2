import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from onnx_esn import compare, convert, quantize
from onnx_esn.calibration import open_set
from onnx_esn.calibration.session import Session
from onnx_esn.errors import ImageSetError, LabelsError, OptionError
from onnx_esn.evaluation import evaluate
from onnx_esn.evaluation.accumulation import AgreementSum
from onnx_esn.evaluation.costs import file_bytes
from onnx_esn.evaluation.matching import unique_names
from onnx_esn.graph.judged_tensors import judged_tensors
from onnx_esn.numerics.agreement import agreement
from tests.models import MODELS
from tests.net import feeds_for
from tests.oracles.equivalence import sizes_of

CLASSES = 4


def classifier(
    seed=0, *, input_name="x", channels=3, classes=CLASSES, batch="N", extra=False, noise=0.0
):
    """x -> Conv -> Relu -> GlobalAveragePool -> Flatten -> Gemm logits (and the Relu's output)."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(size=(8, channels, 3, 3)),
        "g": rng.normal(size=(classes, 8)),
    }
    if noise:
        other = np.random.default_rng(99)
        weights = {k: v + noise * other.normal(size=v.shape) for k, v in weights.items()}
    nodes = [
        helper.make_node("Conv", [input_name, "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["logits"], transB=1),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])]
    if extra:
        outputs.insert(0, helper.make_tensor_value_info("r", TensorProto.FLOAT, [batch, 8, 6, 6]))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, channels, 6, 6])],
        outputs,
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(30, 3, 6, 6)).astype(np.float32)


def run(model, x):
    return Session(model).run({model.graph.input[0].name: x})


def test_agreement_equals_that_of_all_outputs_at_once(images):
    a, b = classifier(), classifier(noise=1.0)
    result = evaluate([a, b], images, batch_size=7, latency=False)
    expected = agreement(run(a, images)["logits"], run(b, images)["logits"])
    got = result.models[1].agreement
    assert got.top1 == pytest.approx(expected.top1)
    assert 0 < got.top1 < 1
    assert got.cosine == pytest.approx(expected.cosine, abs=1e-6)
    assert got.snr_db == pytest.approx(expected.snr_db, abs=1e-3)
    assert got.kl == pytest.approx(expected.kl, abs=1e-6)
    assert got.normalized_error == pytest.approx(expected.normalized_error, rel=1e-4)
    assert got.samples == 30


def test_a_model_agrees_with_itself_exactly(images):
    result = evaluate([classifier()], images, latency=False)
    (model,) = result.models
    assert model.agreement.top1 == 1
    assert model.agreement.snr_db == math.inf
    assert model.latency is None
    assert result.latency_batch is None
    assert result.samples == 30


def test_document_is_strict_json(images):
    labels = np.zeros(30, dtype=np.int64)
    document = evaluate([classifier()], images, labels=labels, latency=False).to_document()
    parsed = json.loads(json.dumps(document, allow_nan=False))
    assert parsed["schema"] == "onnx-esn/evaluation/1"
    assert parsed["reference"] == "classifier"
    assert parsed["models"][0]["agreement"]["snr_db"] is None
    assert parsed["models"][0]["agreement"]["normalized_error"] == 0
    assert parsed["models"][0]["accuracy"]["difference"] == 0


def test_accuracy_with_standard_errors(images):
    a, b = classifier(), classifier(noise=0.5)
    right_a = run(a, images)["logits"].argmax(axis=1)
    labels = right_a.copy()
    labels[::3] = (labels[::3] + 1) % CLASSES
    hits_a = (right_a == labels).astype(float)
    hits_b = (run(b, images)["logits"].argmax(axis=1) == labels).astype(float)
    result = evaluate([a, b], images, labels=labels, batch_size=8, latency=False)
    first, second = (model.accuracy for model in result.models)
    assert first.value == pytest.approx(hits_a.mean())
    assert first.error == pytest.approx(hits_a.std(ddof=1) / math.sqrt(30))
    assert (first.difference, first.difference_error) == (0, 0)
    assert second.difference == pytest.approx((hits_b - hits_a).mean())
    assert second.difference_error == pytest.approx((hits_b - hits_a).std(ddof=1) / math.sqrt(30))


def test_one_sample_has_no_standard_error(images):
    labels = np.zeros(1, dtype=np.int64)
    accuracy = evaluate([classifier()], images[:1], labels=labels, latency=False).models[0].accuracy
    assert accuracy.error is None
    assert accuracy.difference_error is None


def test_headline_is_the_first_classifier_output(images):
    result = evaluate([classifier(extra=True), classifier(3, extra=True)], images, latency=False)
    model = result.models[1]
    assert [output.output for output in model.outputs] == ["r", "logits"]
    assert model.headline.output == "logits"
    assert model.outputs[0].agreement.top1 is None


def test_input_and_outputs_may_have_other_names(images):
    other = classifier(3, input_name="picture")
    other.graph.node[-1].output[0] = other.graph.output[0].name = "scores"
    result = evaluate([classifier(3), other], images, latency=False)
    assert result.models[1].agreement.top1 == 1
    assert result.models[1].headline.output == "logits"


def test_other_inputs_are_refused(images):
    with pytest.raises(OptionError, match=r"(?s)b.*N x 5 x 6 x 6.*a.*N x 3 x 6 x 6"):
        evaluate([classifier(), classifier(channels=5)], images, names=["a", "b"], latency=False)


def test_missing_output_is_refused(images):
    with pytest.raises(OptionError, match="'r'"):
        evaluate([classifier(extra=True), classifier()], images, latency=False)


def test_outputs_of_other_shapes_are_named_not_compared(images):
    result = evaluate([classifier(), classifier(classes=5)], images, latency=False)
    (output,) = result.models[1].outputs
    assert output.agreement is None
    assert "(30, 4) and (30, 5)" in output.reason
    assert result.models[1].agreement is None
    assert result.to_document()["models"][1]["agreement"] is None


def test_fixed_batch_beside_a_free_one(images):
    result = evaluate([classifier(), classifier(batch=4)], images, batch_size=16)
    assert result.models[1].agreement.top1 == 1
    assert result.models[1].agreement.samples == 30


def test_two_fixed_batches_are_refused(images):
    models = [classifier(batch=2), classifier(batch=4)]
    with pytest.raises(OptionError, match="2 in a, 4 in b"):
        evaluate(models, images, names=["a", "b"])


def test_reference_among_the_models_or_put_first(images):
    a, b, c = classifier(), classifier(1), classifier(2)
    among = evaluate([a, b], images, reference=b, names=["a", "b"], latency=False)
    assert among.reference == 1
    assert among.to_document()["reference"] == "b"
    assert among.models[1].agreement.top1 == 1
    added = evaluate([a, b], images, reference=c, latency=False)
    assert len(added.models) == 3
    assert added.reference == 0
    assert added.models[0].agreement.snr_db == math.inf


def test_latency(images):
    result = evaluate([classifier(), classifier(1)], images, threads=1)
    assert result.latency_batch == 1
    for model in result.models:
        assert 0 < model.latency.p10 <= model.latency.median_ms <= model.latency.p90
    assert result.models[0].latency.ratio == 1


def test_latency_refers_to_the_reference(images):
    a, b = classifier(), classifier(1)
    result = evaluate([a, b], images, reference=b, threads=1)
    assert result.models[1].latency.ratio == 1


def test_labels_that_do_not_fit(images):
    with pytest.raises(LabelsError, match="label 9 does not fit the 4 classes"):
        evaluate([classifier()], images, labels=np.full(30, 9), latency=False)


def regression():
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 6, 6]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_labels_without_class_scores(images, caplog):
    labels = np.zeros(30, dtype=np.int64)
    with pytest.raises(LabelsError, match="class scores"):
        evaluate([regression()], images, labels=labels, latency=False)
    result = evaluate([regression()], {"x": images, "y": labels}, latency=False)
    assert result.models[0].accuracy is None
    assert "accuracy is left out" in caplog.text
    assert result.models[0].mean_bits is None


def test_an_open_set_and_progress(images):
    model, seen = classifier(), []
    opened = open_set(images, Session(model).inputs)
    evaluate([model], opened, batch_size=20, latency=False, progress=lambda *at: seen.append(at))
    assert seen == [(20, 30), (30, 30)]


def test_costs(images, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path)
    model = evaluate([path], images, latency=False).models[0]
    assert model.name == "model.onnx"
    assert model.macs == 8 * 3 * 9 * 36 + 8 * CLASSES
    assert model.parameters == 8 * 3 * 9 + 8 * CLASSES
    assert model.esn_prime == 32 * model.macs
    assert model.mean_bits == 32
    assert model.file_bytes == path.stat().st_size


def test_costs_where_height_and_width_are_open(images):
    model = classifier()
    for axis, symbol in ((2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = symbol
    other = classifier(input_name="picture")
    pair = [model, other]
    by_sample = evaluate(pair, images, latency=False).models
    assert [m.macs for m in by_sample] == [8 * 3 * 9 * 36 + 8 * CLASSES] * 2
    given = evaluate([model], images, latency=False, input_shape={"x": (1, 3, 12, 12)}).models[0]
    assert given.macs == 8 * 3 * 9 * 144 + 8 * CLASSES
    assert evaluate([model], images, latency=False, input_shape=(1, 3, 12, 12)).models[0] == given


def test_file_bytes(tmp_path):
    model = classifier()
    assert file_bytes(model) == len(model.SerializeToString())
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert file_bytes(path) == path.stat().st_size + (tmp_path / "w.bin").stat().st_size


def test_names():
    graph = onnx.ModelProto(graph=onnx.GraphProto(name="g"))
    paths = ["a/m.onnx", "b/m.onnx", "c.onnx"]
    assert unique_names([*paths, graph, graph], [None] * 5) == [
        "a/m.onnx",
        "b/m.onnx",
        "c.onnx",
        "g",
        "g (2)",
    ]
    assert unique_names(["a.onnx"], ["float"]) == ["float"]


def test_wrong_arguments(images):
    with pytest.raises(OptionError, match="no model"):
        evaluate([], images)
    with pytest.raises(OptionError, match="1 names for 2 models"):
        evaluate([classifier(), classifier()], images, names=["a"])
    with pytest.raises(ImageSetError):
        evaluate([classifier()], images[:, :2])


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_outputs_with_channels_add_up_over_batches(kind):
    """Each channel by itself, and maps of classes place by place."""
    rng = np.random.default_rng(0)
    ref = rng.normal(size=(23, 5, 7)) * 10.0 ** -np.arange(5)[:, None]
    cand = ref + rng.normal(size=ref.shape) * 1e-3
    if kind == "classes":
        ref, cand = (softmax(x, axis=1).astype(np.float32) for x in (ref, cand))
    total = AgreementSum("y")
    for at in range(0, 23, 4):
        total.add(ref[at : at + 4], cand[at : at + 4])
    found, expected = total.result().agreement, agreement(ref, cand)
    assert (found.kl is None) == (found.top1 is None) == (kind == "numbers")
    for name in ("top1", "cosine", "snr_db", "kl", "normalized_error", "samples"):
        value = getattr(expected, name)
        assert getattr(found, name) == (value if value is None else pytest.approx(value, rel=1e-9))


def test_batches_may_differ_in_their_channels():
    """Found boxes, say: (1, K, 6)."""
    rng = np.random.default_rng(0)
    total, signal, noise = AgreementSum("boxes"), 0.0, 0.0
    for count in (2, 5, 3):
        ref = rng.normal(size=(1, count, 6))
        error = 0.1 * rng.normal(size=ref.shape)
        total.add(ref, ref + error)
        signal, noise = signal + np.square(ref).sum(), noise + np.square(error).sum()
    assert total.result().agreement.normalized_error == pytest.approx(noise / signal)


@pytest.mark.parametrize("stored", [False, True])
def test_qonnx_runs_as_the_floats_it_stands_for(images, tmp_path, stored):
    """onnxruntime has no Quant; what a model costs is read from it all the same."""
    small = quantize(classifier(), bits=3).model
    quant = convert(small, format="qonnx").model
    assert any(node.op_type == "Quant" for node in quant.graph.node)
    if stored:
        onnx.save(quant, tmp_path / "q.onnx")
    other = tmp_path / "q.onnx" if stored else quant
    found = evaluate([small, other], images).models[1]
    assert found.agreement.normalized_error < 1e-10
    assert found.mean_bits == 3
    compared = compare(small, other, images)
    assert compared.outputs.divergence < 1e-6
    assert len(compared.layers) == 2
    assert all(x.output_snr_db > 60 for x in compared.layers)


def test_outputs_of_no_fixed_number_are_judged_by_what_they_are_selected_from():
    """How many boxes NonMaxSuppression lets through differs from image to image, and model."""
    model = MODELS["non_maximum_suppression"].build()
    feeds = feeds_for(model, sizes_of(model))
    rng = np.random.default_rng(0)
    data = {k: rng.normal(size=(12, *v.shape[1:])).astype(v.dtype) for k, v in feeds.items()}
    small = quantize(model, bits=4).model
    found = evaluate([model, small], data).models[1]
    names = [output.output for output in found.outputs]
    assert names == judged_tensors(model)
    assert all(0 < x.agreement.normalized_error < 0.1 for x in found.outputs)
    assert found.latency is not None
    difference = compare(model, small, data)
    assert 0 < difference.outputs.divergence < 0.1
    errors = [x.agreement.normalized_error for x in found.outputs]
    assert difference.outputs.divergence == pytest.approx(np.mean(errors), rel=1e-3)
