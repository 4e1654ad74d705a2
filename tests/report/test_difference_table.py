"""The tables of `compare`: what they say, within 80 columns."""

from __future__ import annotations

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import onnx_esn
from onnx_esn.evaluation.difference import compare
from onnx_esn.report.tables import difference_table
from tests.evaluation.nets import classifier, copy, folded, noisy, renamed
from tests.models import MODELS
from tests.net import Net

IMAGES = np.random.default_rng(1).normal(size=(8, 3, 6, 6)).astype(np.float32)


def render(found, *, width=100, everything=False):
    console = Console(width=width, force_terminal=False, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(difference_table(found, everything=everything))
    text = capture.get()
    assert all(cell_len(line) <= min(width, 80) for line in text.splitlines())
    return text


def line(text, start):
    (found,) = [x for x in text.splitlines() if x.startswith(start)]
    return found.split()


def test_equal_models_are_one_line():
    a = classifier()
    assert difference_table(compare(a, copy(a), names=["a", "b"])) == (
        "a and b are the same: no node, tensor or setting differs"
    )
    assert difference_table(compare(a, copy(a), IMAGES, names=["a", "b"])) == (
        "a and b are the same: no node, tensor or setting differs, nor do their outputs on "
        "8 samples of arrays"
    )


def test_a_quantized_and_pruned_model():
    a = classifier()
    b = onnx_esn.quantize(onnx_esn.prune(a, ratio=0.5).model, bits=3).model
    found = compare(a, b, IMAGES, names=["a.onnx", "b.onnx"])
    text = render(found)
    first = found.layers[0]
    row = line(text, "a ")
    assert f"{first.before.filters}→{first.after.filters}" in row
    assert "32→3" in row
    assert row[-2:] == [f"{first.output_snr_db:.1f}", "dB"]
    assert "Divergence: " in text
    assert "other shape" in text
    assert line(text, "metadata added")[2] == "1:"


def test_the_noisiest_layer_comes_first():
    a = classifier()
    b = noisy(noisy(a, "b.weight", 1.0), "a.weight", 0.01)
    text = render(compare(a, b, IMAGES))
    rows = [x.split()[0] for x in text.splitlines() if x.startswith(("a ", "b ", "fc "))]
    snr = {x.name: x.output_snr_db for x in compare(a, b, IMAGES).layers}
    assert rows == sorted(snr, key=snr.get)
    assert rows[-1] == "a"


def test_layers_that_are_the_same_are_counted():
    a = classifier()
    text = render(compare(a, noisy(a, "fc.weight")))
    assert "2 layers the same." in text
    assert "stored" not in text.split("Stored tensors")[0].split("Layers that differ")[1]


def test_nodes_by_operator_or_by_name():
    a = classifier()
    found = compare(a, folded(a))
    text = render(found)
    assert "only before  2 BatchNormalization" in text
    assert "changed      2 Conv (input 2 added)" in text
    whole = render(found, everything=True)
    assert "only before: BatchNormalization" in whole
    assert "changed: a" in whole


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("name", ["dense_net", "inception", "integer_conv"])
def test_networks_that_have_nothing_to_do_with_each_other(name, everything):
    found = compare(classifier(), renamed(MODELS[name].build()))
    text = render(found, everything=everything, width=60)
    assert "only before" in text
    assert "only after" in text


def test_long_names_and_many_layers_fit():
    net = Net(3, 6, 6)
    y = "x"
    for k in range(25):
        y = net.relu(net.conv(y, 3, 3, name=f"a/very/long/name/of/a/layer/that/goes/on/number{k}"))
    a = net.model(net.head(y, 3))
    a.metadata_props.add(key="a" * 100, value="b" * 500)
    found = compare(a, onnx_esn.quantize(a, bits=2).model, IMAGES, names=["n" * 90, "m" * 90])
    assert "… and 6 more layers (-v shows all)" in render(found)
    assert "more layers" not in render(found, everything=True)
