"""Hostile models, continued: weights in files that are none of the model's business."""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import TensorProto

from tests.hostile.models import hostile, saved
from tests.hostile.verbs import SHAPE
from tests.net import Net

WIDTH = 400  # filters of a layer whose weight is worth to be left in its file


def _model(wide):
    net = Net(*SHAPE)
    if not wide:
        return net.model(net.head(net.relu(net.conv("x", 3, 8, name="a")), 8))
    y = net.relu(net.conv("x", 3, WIDTH, 1, name="a"))
    y = net.relu(net.conv(y, WIDTH, WIDTH, name="b"))
    return net.model(net.head(y, WIDTH))


def _external(folder, entries, *, wide=False, data="weights.bin"):
    """A model that keeps its largest weight in `data`, and says of it what is given."""
    model = _model(wide)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    size = len(tensor.raw_data)
    if data is not None:
        (folder / data).parent.mkdir(parents=True, exist_ok=True)
        (folder / data).write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    given = {"location": "weights.bin", "offset": 0, "length": size, **entries}
    for key, value in given.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    (folder / "deep").mkdir()
    return saved(model, folder / "deep")


def both(says):
    """A model with a small weight outside, and one with a weight that is left in its file."""

    def register(build):
        for wide in (False, True):

            def sized(folder, wide=wide):
                return build(folder, wide)

            sized.__name__ = f"{build.__name__}_{'large' if wide else 'small'}"
            hostile(says)(sized)
        return build

    return register


@both("")
def beside_the_model(folder, wide):
    return _beside(folder, {}, wide)


def _beside(folder, entries, wide):
    model = _external(folder, entries, wide=wide)
    (folder / "weights.bin").rename(model.parent / "weights.bin")
    return model


@both("outside")
def above(folder, wide):
    return _external(folder, {"location": "../weights.bin"}, wide=wide)


@both("outside")
def above_in_disguise(folder, wide):
    return _external(folder, {"location": "sub/../../weights.bin"}, wide=wide)


@both("outside")
def absolute(folder, wide):
    return _external(folder, {"location": str(folder / "weights.bin")}, wide=wide)


@both("no such file")
def with_a_folder_of_its_own(folder, wide):
    """`basepath`: what this project notes in a model for itself, and a file must not."""
    return _external(folder, {"basepath": str(folder)}, wide=wide)


@both("link")
def behind_a_link(folder, wide):
    model = _external(folder, {}, wide=wide)
    (model.parent / "weights.bin").symlink_to(folder / "weights.bin")
    return model


@both("link")
def behind_a_link_to_a_folder(folder, wide):
    model = _external(folder, {"location": "sub/weights.bin"}, wide=wide)
    (model.parent / "sub").symlink_to(folder, target_is_directory=True)
    return model


@both("regular file")
def a_device_of_weights(folder, wide):
    model = _external(folder, {}, wide=wide)
    os.mkfifo(model.parent / "weights.bin")
    return model


@both("no such file")
def nowhere(folder, wide):
    return _external(folder, {}, wide=wide, data=None)


@both("location")
def without_a_place(folder, wide):
    return _external(folder, {"location": None}, wide=wide)


@both("location")
def with_a_null_in_its_place(folder, wide):
    return _external(folder, {"location": "weights\0.bin"}, wide=wide)


@both("regular file")
def the_folder_itself(folder, wide):
    return _external(folder, {"location": "."}, wide=wide)


@both("too short")
def beyond_the_end(folder, wide):
    return _beside(folder, {"offset": 10**9}, wide)


@both("too short")
def beyond_all_ends(folder, wide):
    return _beside(folder, {"offset": 2**63, "length": None}, wide)


@both("offset")
def before_the_start(folder, wide):
    return _beside(folder, {"offset": -64}, wide)


@both("offset")
def at_no_number(folder, wide):
    return _beside(folder, {"offset": "9" * 10_000}, wide)


@both("bytes")
def longer_than_the_weight(folder, wide):
    return _beside(folder, {"length": 2**50}, wide)


@both("bytes")
def shorter_than_the_weight(folder, wide):
    return _beside(folder, {"length": 8}, wide)


@hostile()
def a_terabyte_from_one_file(folder):
    """Ten thousand weights that all are the same hundred megabytes."""
    net = Net(*SHAPE)
    model = net.model(net.head(net.relu(net.conv("x", 3, 8, name="a")), 8))
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(100 << 20)
    for i in range(10_000):
        tensor = model.graph.initializer.add(name=f"w{i}", data_type=1, dims=[25 << 20])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    return saved(model, folder)


@both("location")
def keys_nobody_knows(folder, wide):
    return _beside(folder, {"location": None, "__class__": "x", "path": "weights.bin"}, wide)


@hostile("outside")
def in_an_attribute(folder):
    """A Constant node may keep its value in a file too."""
    (folder / "deep").mkdir()
    (folder / "weights.bin").write_bytes(np.ones(8, np.float32).tobytes())
    net = Net(*SHAPE)
    y = net.op("Constant", value=onnx.numpy_helper.from_array(np.ones(8, np.float32), "c"))
    y = net.op("Add", net.head(net.relu(net.conv("x", 3, 8, name="a")), 8, 8), y)
    model = net.model(y)
    held = next(n for n in model.graph.node if n.op_type == "Constant").attribute[0].t
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../weights.bin")
    return saved(model, folder / "deep")
