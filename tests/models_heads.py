"""Tiny graphs, continued: heads of detectors, segmenters and text readers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.models import graph, stem
from tests.models_families import doubled, resize_like
from tests.net import Net

INT64 = TensorProto.INT64


def levels(net):
    """Two levels of features, eight and ten channels, 6 × 6 and 3 × 3 pixels."""
    x = stem(net)
    return x, net.conv_bn_relu(x, 8, 10, name="b", strides=[2, 2])


def columns(net, x, width, *, last):
    """A level's predictions, (N, anchors · width, H, W), as (N, -1, width) or (N, width, -1)."""
    if last:
        return net.reshape(net.op("Transpose", x, perm=[0, 2, 3, 1]), 0, -1, width)
    return net.reshape(x, 0, width, -1)


@graph("a", "b", stays=["box0", "score0"], locked="graph output")
def single_shot_detector():
    """SSD: boxes and scores of every level, joined; decoded with stored anchors."""
    net = Net(3, 6, 6)
    boxes, scores = [], []
    for i, (x, c) in enumerate(zip(levels(net), (8, 10), strict=True)):
        boxes.append(columns(net, net.conv(x, c, 8, name=f"box{i}"), 4, last=True))
        scores.append(columns(net, net.conv(x, c, 6, name=f"score{i}"), 3, last=True))
    box, score = net.op("Concat", *boxes, axis=1), net.op("Concat", *scores, axis=1)
    anchors = net.vector(1, 90, 2)
    centre = net.op("Slice", box, net.ints(0), net.ints(2), net.ints(2))
    size = net.op("Exp", net.op("Slice", box, net.ints(2), net.ints(4), net.ints(2)))
    box = net.op("Concat", net.op("Add", net.op("Mul", centre, size), anchors), size, axis=2)
    return net.model(box, net.op("Softmax", score, axis=2), shapes={"concat_21_out": None})


@graph("a", "b", "t0", "t1", stays=["cls"])
def retina_net():
    """Towers shared by the levels, sigmoid scores."""
    net = Net(3, 6, 6)
    weights = [net.weight(6, 6, 3, 3, fan_in=54), net.weight(4, 6, 3, 3, fan_in=54)]
    outs = []
    for i, (x, c) in enumerate(zip(levels(net), (8, 10), strict=True)):
        y = net.relu(net.conv(x, c, 6, 1, name=f"t{i}"))
        y = net.relu(net.op("Conv", y, weights[0], pads=[1] * 4))
        y = net.op("Conv", y, weights[1], pads=[1] * 4, name="cls" if i == 0 else "cls1")
        outs.append(columns(net, y, 2, last=True))
    return net.model(net.op("Sigmoid", net.op("Concat", *outs, axis=1)))


@graph("a", "b", "t0", stays=["box0", "centre0"])
def fully_convolutional_one_stage():
    """FCOS: a learned scale for each level, exponentials, centre-ness."""
    net = Net(3, 6, 6)
    outs = []
    for i, (x, c) in enumerate(zip(levels(net), (8, 10), strict=True)):
        y = net.conv(x, c, 6, name=f"t{i}")
        y = net.reshape(y, 0, 3, -1)  # GroupNorm of three groups, as exported
        y = net.op("InstanceNormalization", y, net.store(np.ones(3)), net.store(np.zeros(3)))
        y = net.relu(net.op("Mul", net.reshape(y, 0, 6, 6 - 3 * i, 6 - 3 * i), net.vector(6, 1, 1)))
        box = net.conv(y, 6, 4, name=f"box{i}")
        box = net.op("Exp", net.op("Mul", box, net.vector(1, low=0.5, high=1.0)))
        centre = net.op("Sigmoid", net.conv(y, 6, 1, name=f"centre{i}"))
        parts = (columns(net, t, w, last=False) for t, w in ((box, 4), (centre, 1)))
        outs.append(net.op("Concat", *parts, axis=1))
    return net.model(net.op("Concat", *outs, axis=2))


@graph("a", "b", "d0", stays=["p0"])
def yolo_v5():
    """Three anchors a cell: reshape, sigmoid, slices decoded on a grid."""
    net = Net(3, 6, 6)
    outs = []
    for i, (x, c, n) in enumerate(zip(levels(net), (8, 10), (6, 3), strict=True)):
        y = net.conv(net.conv_bn_relu(x, c, 6, name=f"d{i}"), 6, 18, 1, name=f"p{i}")
        y = net.op("Transpose", net.reshape(y, -1, 3, 6, n, n), perm=[0, 1, 3, 4, 2])
        y = net.op("Sigmoid", y)
        xy, wh, rest = net.op("Split", y, net.ints(2, 2, 2), outputs=3, axis=4)
        xy = net.op("Add", net.op("Mul", xy, net.store(np.array(2.0))), net.vector(1, 1, n, n, 2))
        wh = net.op("Mul", net.op("Mul", wh, wh), net.vector(1, 3, 1, 1, 2))
        outs.append(net.reshape(net.op("Concat", xy, wh, rest, axis=4), 0, -1, 6))
    return net.model(net.op("Concat", *outs, axis=1))


@graph("a", "b", "d0", "c0", stays=["p0"])
def yolo_v8():
    """Distances as distributions: softmax over sixteen bins, read by a fixed 1 × 1 layer."""
    net = Net(3, 6, 6)
    outs = []
    for i, (x, c) in enumerate(zip(levels(net), (8, 10), strict=True)):
        box = net.conv(net.conv_bn_relu(x, c, 5, name=f"d{i}"), 5, 16, 1, name=f"p{i}")
        score = net.conv(net.conv_bn_relu(x, c, 5, name=f"c{i}"), 5, 3, 1)
        outs.append(net.reshape(net.op("Concat", box, score, axis=1), 0, 19, -1))
    box, score = net.op(
        "Split", net.op("Concat", *outs, axis=2), net.ints(16, 3), outputs=2, axis=1
    )
    y = net.op("Transpose", net.reshape(box, 0, 4, 4, 45), perm=[0, 2, 1, 3])
    y = net.op("Softmax", y, axis=1)
    bins = net.store(np.arange(4.0).reshape(1, 4, 1, 1))
    y = net.reshape(net.op("Conv", y, bins), 0, 4, 45)
    near, far = net.op("Split", y, outputs=2, axis=1)
    y = net.op(
        "Concat", net.op("Sub", net.vector(1, 2, 45), near), net.op("Add", far, near), axis=1
    )
    return net.model(net.op("Concat", y, net.op("Sigmoid", score), axis=1))


@graph("a", "b", stays=["s"])
def best_boxes():
    """TopK over all cells, boxes picked by GatherElements: the predictions stay."""
    net = Net(3, 6, 6)
    x = net.conv_bn_relu(stem(net), 8, 6, name="b")
    score = net.reshape(net.conv(x, 6, 2, 1, name="s"), 0, 72)
    best, index = net.op("TopK", score, net.ints(5), outputs=2, axis=1)
    boxes = columns(net, net.conv(x, 6, 8, 1, name="p"), 4, last=True)
    at = net.op("Expand", net.op("Unsqueeze", index, net.ints(2)), net.ints(1, 1, 4))
    return net.model(best, net.op("GatherElements", boxes, at, axis=1))


@graph("a", "b", stays=["s", "p"])
def non_maximum_suppression():
    """NonMaxSuppression and GatherND in the graph: as many boxes as the data asks for."""
    net = Net(3, 4, 4, batch=1)
    x = net.conv_bn_relu(stem(net), 8, 6, name="b")
    score = net.op("Sigmoid", net.reshape(net.conv(x, 6, 2, 1, name="s"), 1, 2, 16))
    boxes = net.op("Sigmoid", columns(net, net.conv(x, 6, 4, 1, name="p"), 4, last=True))
    few, low = net.ints(3), net.store(np.array([0.1], np.float32))
    picked = net.op("NonMaxSuppression", boxes, score, few, low, low, center_point_box=1)
    score = net.op("GatherND", score, picked)
    at = net.op("Gather", picked, net.ints(0, 2), axis=1)
    boxes = net.op("GatherND", boxes, at)
    return net.model(score, boxes, shapes={score: ["K"], boxes: ["K", 4]})


@graph("a", "b", "r0", "r2", "pool", "z")
def deep_lab():
    """ASPP: dilated branches beside a pooled one that is enlarged again."""
    net = Net(3, 6, 6)
    x = net.conv_bn_relu(stem(net), 8, 8, name="b")
    parts = [net.conv_bn_relu(x, 8, 4, 1, name="r0")]
    parts += [
        net.conv_bn_relu(x, 8, 4, name=f"r{d}", dilations=[d, d], pads=[d] * 4) for d in (2, 3)
    ]
    pooled = net.conv_bn_relu(net.op("GlobalAveragePool", x), 8, 4, 1, name="pool")
    parts.append(resize_like(net, pooled, x, 4, "linear"))
    y = net.conv_bn_relu(net.op("Concat", *parts, axis=1), 16, 6, 1, name="z")
    y = net.conv(net.op("Dropout", y), 6, 3, 1)
    return net.model(
        resize_like(net, y, "x", 3, "linear"), shapes={"resize_45_out": ["N", 3, 6, 6]}
    )


@graph("a", "b", "high", "gate")
def lite_r_aspp():
    """LR-ASPP: a gate from pooled features, low and high heads added."""
    net = Net(3, 6, 6)
    low, x = levels(net)
    y = net.conv_bn_relu(x, 10, 6, 1, name="high")
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", x), 10, 6, 1, name="gate"))
    y = resize_like(net, net.op("Mul", y, gate), low, 6, "linear")
    return net.model(net.op("Add", net.conv(low, 8, 3, 1), net.conv(y, 6, 3, 1)))


@graph("a", "b", "h")
def fully_convolutional_net():
    """FCN: a head, enlarged to the input; the classes by ArgMax; an auxiliary head."""
    net = Net(3, 6, 6)
    low, x = levels(net)
    y = net.conv(net.conv_bn_relu(x, 10, 6, name="h"), 6, 4, 1)
    y = resize_like(net, y, "x", 4, "linear")
    side = net.conv(low, 8, 4, 1)
    best = net.op("ArgMax", y, axis=1, keepdims=0)
    return net.model(best, side, types={best: INT64}, shapes={best: ["N", 6, 6]})


@graph("a", "b", "d", "p", "up")
def text_detector():
    """PP-OCR det: FPN of 1 × 1 layers, joined, transposed convolutions, a sigmoid map."""
    net = Net(3, 8, 8)
    low, x = levels(net)
    top = net.conv(x, 10, 6, 1, bias=False, name="d")
    y = net.op("Add", net.conv(low, 8, 6, 1, bias=False), doubled(net, top))
    y = net.conv(y, 6, 4, bias=False, name="p")
    y = net.op("Concat", doubled(net, net.conv(top, 6, 4)), y, axis=1)
    y = net.conv_bn_relu(y, 8, 6, name="q")
    w = net.weight(6, 5, 2, 2, fan_in=6)
    y = net.op("ConvTranspose", y, w, net.vector(5), strides=[2, 2], kernel_shape=[2, 2], name="up")
    y = net.deconv(net.relu(net.bn(y, 5)), 5, 1)
    return net.model(net.op("Sigmoid", y))


def _hard_swish(net, y):
    return net.op("Mul", y, net.op("HardSigmoid", y, alpha=1 / 6, beta=0.5))


def _text_features(net):
    """MobileNetV3 with squeeze and excite, down to one row of pixels: (N, 10, 1, W)."""
    x = _hard_swish(net, net.bn(net.conv("x", 3, 8, bias=False, name="a"), 8))
    y = _hard_swish(net, net.bn(net.conv(x, 8, 12, 1, bias=False, name="e"), 12))
    y = _hard_swish(net, net.bn(net.conv(y, 12, 12, group=12, bias=False, name="d"), 12))
    s = net.conv(net.op("GlobalAveragePool", y), 12, 3, 1, name="s1")
    s = net.op("HardSigmoid", net.conv(net.relu(s), 3, 12, 1, name="s2"), alpha=0.2, beta=0.5)
    y = net.op("Add", x, net.bn(net.conv(net.op("Mul", y, s), 12, 8, 1, name="p"), 8))
    y = _hard_swish(net, net.bn(net.conv(y, 8, 10, 1, name="q"), 10))
    return net.op("MaxPool", y, kernel_shape=[4, 1], strides=[4, 1])


@graph("a", "e", "d", "s1", "p", "q")
def text_recogniser():
    """PP-OCR rec: columns of pixels through two bidirectional LSTMs to a softmax."""
    net = Net(3, 4, 8)
    y = net.op("Squeeze", _text_features(net), net.ints(2))
    y = net.op("Transpose", y, perm=[0, 2, 1])  # (N, W, C)
    y = net.op("Transpose", y, perm=[1, 0, 2])
    for c in (10, 8):
        w, r = net.weight(2, 16, c, fan_in=c), net.weight(2, 16, 4, fan_in=4)
        y, _, _ = net.op(
            "LSTM", y, w, r, net.vector(2, 32), outputs=3, hidden_size=4, direction="bidirectional"
        )
        y = net.op("Transpose", y, perm=[0, 2, 1, 3])  # (W, N, 2, H)
        y = net.reshape(y, 0, 0, -1)
    y = net.linear(net.op("Transpose", y, perm=[1, 0, 2]), 8, 5)
    return net.model(net.op("Softmax", y, axis=2), shapes={"softmax_54_out": ["N", 8, 5]})


@graph("a", "e", "d", "s1", "p", "q", "fc")
def text_recogniser_without_recurrence():
    """The CTC head of later versions: linear layers on columns, sizes read from the shape."""
    net = Net(3, 4, "W")
    y = _text_features(net)
    y = net.reshape_computed(y, net.size(y, 0), net.size(y, 1), net.size(y, 3))
    y = net.op("Transpose", y, perm=[0, 2, 1])
    y = net.op("MatMul", y, net.weight(10, 6, fan_in=10), name="fc")
    y = net.linear(net.op("Add", y, net.vector(6)), 6, 5)
    return net.model(net.op("Softmax", y, axis=2))


@graph("a", "e", "d", "s1", "p", "q")
def text_direction_classifier():
    net = Net(3, 4, 8)
    y = net.op("GlobalAveragePool", _text_features(net))
    y = net.op("MatMul", net.reshape(y, -1, 10), net.weight(10, 2, fan_in=10))
    return net.model(net.op("Softmax", net.op("Add", y, net.vector(2)), axis=1))


@graph("a", "b", stays=["p"])
def key_points_by_soft_argmax():
    """Heat maps, softmax over the pixels, expected coordinates by MatMul with a stored grid."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b")
    y = net.reshape(net.conv(y, 6, 4, 1, name="p"), 0, 4, 36)
    y = net.op("Softmax", y, axis=2)
    return net.model(net.op("MatMul", y, net.weight(36, 2, fan_in=36)))


@graph("a", "b", "m")
def two_stage_detector():
    """RoiAlign of a second input's boxes, a head on the pooled features."""
    net = Net(3, 6, 6, batch=1)
    x = net.conv_bn_relu(stem(net), 8, 6, name="b")
    rois = net.op(
        "Add", net.op("Sigmoid", net.input("rois", 5, 4)), net.store(np.array([0.0, 0, 2, 2]))
    )
    index = net.raw(np.zeros(5, np.int64))
    y = net.op("RoiAlign", x, rois, index, output_height=2, output_width=2)
    y = net.relu(net.gemm(net.op("Flatten", y), 24, 8, name="m"))
    return net.model(net.gemm(y, 8, 3), net.gemm(y, 8, 4))
