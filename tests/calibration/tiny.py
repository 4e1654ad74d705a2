"""Models of a few nodes and folders of a few images, for the tests of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnx_esn.calibration import TensorSpec


def spec(*shape, name="x", dtype="float32"):
    return TensorSpec(name, np.dtype(dtype), shape)


IMAGE_SPEC = spec("N", 3, 8, 8)


def build(nodes, inputs, outputs, initializers=(), ir_version=8):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=ir_version)


def conv_model(batch="N", elem=TensorProto.FLOAT, ir_version=8, size=8):
    """x -> Conv c -> Relu r -> GlobalAveragePool y, with an integer ArgMax on the side."""
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    weight = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(dtype)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ArgMax", ["r"], ["index"], axis=1),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    shape = [batch, 3, size, size]
    return build(
        nodes,
        [("x", elem, shape)],
        [("y", elem, [batch, 2, 1, 1])],
        [("w", weight)],
        ir_version=ir_version,
    )


def unary_model(op, batch="N", shape=(2,), **attributes):
    """x -> op -> y."""
    dims = [batch, *shape]
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    return build([node], [("x", TensorProto.FLOAT, dims)], [("y", TensorProto.FLOAT, None)])


def add_model():
    """Two inputs a and b, N x 2 each; y = a + b."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [(name, TensorProto.FLOAT, ["N", 2]) for name in "ab"]
    return build([node], inputs, [("y", TensorProto.FLOAT, ["N", 2])])


def save_images(folder: Path, names, size=(8, 8), seed=0):
    """Random colour images, lossless where the suffix allows; returns their pixels by name."""
    rng = np.random.default_rng(seed)
    pixels = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels[name] = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels[name]).save(path)
    return pixels


def all_feeds(dataset, size, name="x"):
    """Every sample of a set, without padding."""
    return np.concatenate([batch.feeds[name][: batch.count] for batch in dataset.batches(size)])


def external(model: onnx.ModelProto, path: Path) -> Path:
    """Save with all weights in a file beside the model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(
        copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path
