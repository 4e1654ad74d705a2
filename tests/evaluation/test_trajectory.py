"""`trace`: checkpoints in order, sums by hand, the policy, and what is refused."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_esn import inspect, quantize, trace
from onnx_esn.errors import ModelError, OptionError, PlanError
from onnx_esn.evaluation.trajectory.checkpoints import arrange
from onnx_esn.plans.bit_policy import load_policy
from tests.passes.tiny import two_convs


def save(folder, name, **arrays):
    path = folder / name
    np.savez(path, **{k: np.asarray(v, np.float32) for k, v in arrays.items()})
    return path


@pytest.fixture
def tiny(tmp_path):
    """Two layers over two epochs; by hand below."""
    save(tmp_path, "epoch_0.npz", a=[[1, 0]], b=[[2, 2]])
    save(tmp_path, "epoch_1_iter_5.npz", a=[[2, 0]], b=[[2, 3]])
    save(tmp_path, "epoch_1.npz", a=[[3, 1]], b=[[2, 2]])
    save(tmp_path, "epoch_2.npz", a=[[3, 2]], b=[[4, 2]])
    return tmp_path


def test_by_hand(tiny):
    found = trace([tiny])
    first, second = found.epochs
    assert (first.epoch, first.samples, second.epoch, second.samples) == (1, 2, 2, 1)
    a, b = first.layers["a"], first.layers["b"]
    assert (a.signal, a.noise, a.weights) == (4 + 10, 1 + 5, 2)
    assert (b.signal, b.noise) == (13 + 8, 1 + 0)
    assert a.esn_a == pytest.approx(2 / 12 * 14 / 6)
    assert first.total.esn_a == pytest.approx(2 / 12 * (14 / 6 + 21))
    assert (first.total.signal, first.total.noise, first.total.weights) == (35, 7, 4)
    assert second.layers["b"].esn_a == pytest.approx(2 / 12 * 20 / 4)
    assert found.policy_epoch == 2
    assert "1 epochs have a single checkpoint" in found.notes[0]


def test_a_start_within_the_epoch(tmp_path):
    save(tmp_path, "e4_i0.npz", w=[[1, 1]])
    save(tmp_path, "e4_i10.npz", w=[[1, 2]])
    save(tmp_path, "e5_i10.npz", w=[[1, 4]])
    found = trace([tmp_path])
    assert [x.layers["w"].noise for x in found.epochs] == [1.0, 4.0]


def test_missing_starts_are_noted(tmp_path):
    for epoch in (0, 1, 4, 5):
        save(tmp_path, f"epoch_{epoch}.npz", w=[[epoch, 1]])
    found = trace([tmp_path])
    assert [x.epoch for x in found.epochs] == [1, 5]
    assert "epoch 4 has no start: the end of epoch 3 is missing" in found.notes


def test_models_and_arrays_give_the_same(tmp_path):
    models, arrays = tmp_path / "models", tmp_path / "arrays"
    models.mkdir()
    arrays.mkdir()
    rng = np.random.default_rng(0)
    model = two_convs()
    for epoch in range(3):
        for t in model.graph.initializer:
            if t.name.startswith("W"):
                W = numpy_helper.to_array(t)
                W = W + 0.1 * rng.normal(size=W.shape).astype(np.float32)
                t.CopyFrom(numpy_helper.from_array(W, t.name))
        onnx.save(model, models / f"epoch-{epoch}.onnx")
        values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        np.savez(arrays / f"epoch-{epoch}.npz", **values)  # vectors are left out
    first, second = trace([models]), trace([arrays])
    assert list(first.epochs[0].layers) == ["Conv_0", "Conv_3", "Gemm_6"]
    assert list(second.epochs[0].layers) == ["W1", "W2", "W3"]
    for x, y in zip(first.epochs, second.epochs, strict=True):
        for p, q in zip(x.layers.values(), y.layers.values(), strict=True):
            assert p.signal == pytest.approx(q.signal, rel=1e-12)
            assert p.noise == pytest.approx(q.noise, rel=1e-12)
    assert [x.bits for x in first.policy] == [x.bits for x in second.policy]
    assert [x.weight for x in first.policy] == ["W1", "W2", "W3"]


def test_a_table_of_iterations(tmp_path):
    for name, w in (("x", 1), ("y", 2), ("z", 4)):
        save(tmp_path, f"{name}.npz", w=[[w, 1]])
    table = tmp_path / "marks.csv"
    table.write_text("file,epoch,iteration\nz.npz,3,\ny.npz,3,7\nx.npz,2,\nother.npz,9,1\n")
    files = [tmp_path / f"{n}.npz" for n in "zxy"]
    found = trace(files, iterations=table)
    assert [c.path.name for c in arrange(files, table)] == ["x.npz", "y.npz", "z.npz"]
    assert found.epochs[0].layers["w"].noise == 1 + 9


def test_accuracy_chooses_the_epoch(tiny):
    table = tiny / "accuracy.csv"
    table.write_text("epoch,accuracy,note\n1,0.9,x\n2,0.8,\n")
    found = trace([tiny], accuracy=table)
    assert [x.accuracy for x in found.epochs] == [0.9, 0.8]
    assert found.policy_epoch == 1
    assert trace([tiny], accuracy={2: 0.95, 1: 0.9}).policy_epoch == 2
    assert trace([tiny], accuracy=table, epoch=2).policy_epoch == 2
    with pytest.raises(OptionError, match="epoch 7 cannot be computed; there are: 1, 2"):
        trace([tiny], epoch=7)


def test_csv_and_json(tiny):
    found = trace([tiny], accuracy={1: 0.5})
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [(r["epoch"], r["layer"]) for r in rows] == [
        (e, n) for e in "12" for n in ("a", "b", "total")
    ]
    assert float(rows[2]["esn_a"]) == found.epochs[0].total.esn_a
    assert (rows[0]["accuracy"], rows[3]["accuracy"]) == ("0.5", "")
    document = json.loads(json.dumps(found.to_document(), allow_nan=False))
    assert document["epochs"][0]["layers"][0]["layer"] == "a"
    assert document["policy"]["layers"][0]["bits"] == found.policy[0].bits


def test_layers_that_did_not_move_get_no_bits(tmp_path):
    save(tmp_path, "epoch_0.npz", a=[[1, 2]], b=[[1, 2]])
    save(tmp_path, "epoch_1.npz", a=[[1, 2]], b=[[1, 3]])
    found = trace([tmp_path])
    assert [x.layer for x in found.policy] == ["b"]
    assert found.epochs[0].total.esn_a is None
    assert found.to_document()["epochs"][0]["layers"][0]["esn_a"] is None


def test_the_policy_is_followed(tmp_path):
    rng = np.random.default_rng(0)
    model = two_convs()
    W = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name[0] == "W"}
    for epoch, far in ((0, None), (1, (0.02, 0.3, 0.1))):
        moved = W if far is None else {
            n: w + s * rng.normal(size=w.shape) for (n, w), s in zip(W.items(), far, strict=True)
        }  # fmt: skip
        save(tmp_path, f"epoch_{epoch}.npz", **moved)
    found = trace([tmp_path])
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(found.to_document()))
    result = quantize(model, policy=path)
    bits = {x.layer: x.bits for x in found.policy}
    assert bits["W1"] > bits["W3"] > bits["W2"]
    layers = inspect(result.model).layers
    assert [set(x.filter_bits) for x in layers] == [{bits[n]} for n in ("W1", "W2", "W3")]
    assert load_policy(path) == found.bit_policy()
    # A layer goes by its node's name too; what is not named stays.
    named = tmp_path / "policy.json"
    named.write_text('{"layers": [{"layer": "Conv_3", "bits": 3}]}')
    partly = quantize(model, policy=named)
    assert [x.quantized for x in inspect(partly.model).layers] == [False, True, False]
    assert {s.reason for s in partly.skipped} == {"the policy does not name it"}
    images = rng.normal(size=(12, 3, 6, 6)).astype(np.float32)
    fine = quantize(model, policy=found.bit_policy(), images=images)
    assert fine.details["compensated_layers"] == 3
    assert [max(x.filter_bits) for x in inspect(fine.model).layers] == list(bits.values())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"layers": [{"layer": "Conf_3", "bits": 3}]}', "close names: .*Conv_3"),
        ('{"layers": [{"layer": "Conv_3", "bits": 9}]}', "'bits' must be 1 to 8"),
        ('{"layers": [{"layer": "Conv_3"}]}', "'bits' must be an integer"),
        ('{"layers": [{"layer": "a", "bits": 2}, {"layer": "a", "bits": 2}]}', "'a' twice"),
        ('{"policy": null}', "holds no policy"),
        ("[]", "is a JSON object"),
        ("{}", "'layers' must be a list"),
        ("{", r"policy\.json: not a policy"),
        ("[" * 100_000, r"policy\.json: not a policy"),
        ('{"layers": []}', "names no layer"),
        ('{"schema": "onnx-esn/spatial-plan/1", "layers": [{"layer": "a", "bits": 2}]}',
         "schema is 'onnx-esn/spatial-plan/1', expected 'onnx-esn/bit-policy/1'"),
    ],
)  # fmt: skip
def test_wrong_policies(tmp_path, document, message):
    path = tmp_path / "policy.json"
    path.write_text(document)
    with pytest.raises(PlanError, match=message):
        quantize(two_convs(), policy=path)


def test_a_policy_stands_alone(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"layers": [{"layer": "Conv_3", "bits": 1}]}')
    with pytest.raises(OptionError, match="exactly one of"):
        quantize(two_convs(), policy=path, bits=3)
    with pytest.raises(OptionError, match="leave the policy out"):
        quantize(two_convs(), policy=path, method="aciq")
    with pytest.raises(PlanError, match="nothing but zeros"):
        quantize(two_convs(), policy=path, quantizer="mid-tread")


def test_what_is_no_series_of_checkpoints(tmp_path):
    def fails(message, *files, kind=OptionError, **options):
        with pytest.raises(kind, match=message):
            trace(list(files), **options)

    a = save(tmp_path, "epoch_1.npz", w=[[1, 2]])
    fails("no epoch has both a start", a)
    fails("give the checkpoints of a training")
    fails("no such file", tmp_path / "epoch_2.npz")
    fails("is no checkpoint", tmp_path / "epoch_2.pt")
    (tmp_path / "empty").mkdir()
    fails("has no .onnx or .npz files", tmp_path / "empty")
    fails("its name says no epoch; call it such as epoch_003.npz", save(tmp_path, "w.npz", w=[[1]]))
    twice = save(tmp_path, "again_epoch_01.npz", w=[[1, 2]])
    fails("are both the end of epoch 1", a, twice)
    fails(
        "has a layer 'v', and",
        a,
        save(tmp_path, "epoch_2.npz", w=[[1, 2]], v=[[1]]),
        kind=ModelError,
    )
    fails("another shape than in .*: 1×2 and 1×3", a, save(tmp_path, "epoch_3.npz", w=[[1, 2, 3]]),
          kind=ModelError)  # fmt: skip
    fails("not finite", a, save(tmp_path, "epoch_4.npz", w=[[1, np.nan]]), kind=ModelError)
    np.savez(tmp_path / "epoch_8.npz", w=np.array([[1, 1e200]]))
    fails("weights of w are too large", a, tmp_path / "epoch_8.npz", kind=ModelError)
    fails("has no weights", a, save(tmp_path, "epoch_5.npz", w=[1, 2]), kind=ModelError)
    (tmp_path / "epoch_6.npz").write_bytes(b"nothing")
    fails("cannot be read as .npz", a, tmp_path / "epoch_6.npz", kind=ModelError)
    b = save(tmp_path, "epoch_7.npz", w=[[1, 2]])
    fails("'gauss' is not known", a, b, quantizer="gauss")
    for text, message in (
        ("file,epoch\nepoch_1.npz,1\n", "says nothing of epoch_7.npz"),
        ("file,epoch\nepoch_1.npz,one\n", "line 2: 'one' is not a whole number"),
        ("file,iteration\n", "has no column 'epoch'"),
    ):
        (tmp_path / "t.csv").write_text(text)
        fails(message, a, b, iterations=tmp_path / "t.csv")
    for text, message in (
        ("epoch,accuracy\n1,good\n", "line 2: 'good' is not a number"),
        ("epoch,accuracy\n1,0.5\n1,0.6\n", "epoch 1 is there twice"),
        ("epoch,accuracy\n1\n", "line 2: '' is not a number"),
        ("epoch,accuracy\n1,85.3\n", "line 2: 85.3 is not an accuracy: a fraction, 0 … 1"),
        ("epoch,accuracy\n1,-0.1\n", "line 2: -0.1 is not an accuracy"),
    ):
        (tmp_path / "acc.csv").write_text(text)
        fails(message, a, b, accuracy=tmp_path / "acc.csv")
    (tmp_path / "acc.csv").write_text("epoch,accuracy\n99,0.5\n")
    c = save(tmp_path, "epoch_8.npz", w=[[1, 3]])
    fails(r"acc\.csv: has none of the epochs 8", b, c, accuracy=tmp_path / "acc.csv")
    fails("accuracy: has none of the epochs 8", b, c, accuracy={99: 0.5})
    fails("cannot be read", a, b, accuracy=tmp_path / "none.csv")
