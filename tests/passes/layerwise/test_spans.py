"""Which samples `run_in_stages` says a batch holds, and what a change acts on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnx_esn.calibration import input_specs, open_set
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.staged import Span, run_in_stages
from onnx_esn.errors import VerificationError
from tests.net import Net
from tests.oracles.equivalence import run
from tests.passes.layerwise.samples import smooth, stored, with_outputs, with_values

Array = npt.NDArray[Any]


def chain(batch: int | str = "N") -> onnx.ModelProto:
    net = Net(3, 6, 6, batch=batch)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    return net.model(net.conv(net.relu(net.conv(y, 4, 4, name="b")), 4, 4, name="c"))


def points_of(model: onnx.ModelProto) -> list[Point]:
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    return [Point(node.name, node.input[0], 1, node.output[0]) for node in convs]


@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("count", [3, 4, 10])
@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_every_sample_is_seen_once_at_each_point(batch: int | str, count: int, memory: int) -> None:
    model, x = chain(batch), smooth(count, size=6)
    seen: dict[str, dict[int, Array]] = {}
    finished: list[str] = []

    def visit(point: Point, value: Array, span: Span) -> None:
        assert len(value) == span.size
        assert 1 <= span.count <= span.size
        assert span.size == (4 if batch == 4 else span.count)
        assert point.name not in finished
        for i in range(span.count):
            assert seen.setdefault(point.name, {}).setdefault(span.first + i, value[i]) is not None

    def finish(point: Point) -> Mapping[str, Array]:
        finished.append(point.name)
        return {}

    points, images = points_of(model), open_set(x, input_specs(model))
    run_in_stages(
        model, points, images, visit, finish, batch_size=4, memory_limit=memory, disk_reserve=None
    )
    assert finished == ["a", "b", "c"]
    names = [p.tensor for p in points[1:]]
    tensors = dict(zip(names, run(with_outputs(chain(), *names), {"x": x}), strict=True))
    for point in points:
        assert sorted(seen[point.name]) == list(range(count))
        whole = tensors.get(point.tensor, x)
        for i, value in seen[point.name].items():
            np.testing.assert_allclose(value, whole[i], rtol=1e-4, atol=1e-5)


def test_what_was_changed_is_what_later_points_see() -> None:
    model, x = chain(), smooth(7, size=6)
    seen: dict[str, list[Array]] = {}

    def visit(point: Point, value: Array, span: Span) -> None:
        seen.setdefault(point.name, []).append(value[: span.count])

    def finish(point: Point) -> Mapping[str, Array]:
        return {f"{point.name}.weight": -2 * stored(model, f"{point.name}.weight")}

    points = points_of(model)
    run_in_stages(model, points, open_set(x, input_specs(model)), visit, finish, batch_size=3)
    changed = with_values(model, lambda n, v: -2 * v if n.endswith(".weight") else v)
    for point in points[1:]:
        (wanted,) = run(with_outputs(changed, point.tensor), {"x": x})
        np.testing.assert_allclose(np.concatenate(seen[point.name]), wanted, rtol=1e-4, atol=1e-4)


def test_new_values_that_are_not_finite_name_the_point() -> None:
    model = chain()

    def finish(point: Point) -> Mapping[str, Array]:
        value = stored(model, f"{point.name}.weight")
        return {f"{point.name}.weight": value * (np.nan if point.name == "b" else 1)}

    images = open_set(smooth(3, size=6), input_specs(model))
    with pytest.raises(VerificationError, match="b: the correction is not finite"):
        run_in_stages(model, points_of(model), images, lambda *_: None, finish)
