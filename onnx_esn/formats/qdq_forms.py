"""The ways to write a weight on a grid as DequantizeLinear on integers, each exact.

    direct        integers n at scale s per filter:  W = DequantizeLinear(n, s)
    shifted       k of n = 2·k + 1, one bit less:    W = (DequantizeLinear(k, 1) + ½) · 2s
    scaled after  where DequantizeLinear cannot take s (two filter axes, float64, an operator set
                  before 13), or should not:         W = DequantizeLinear(n, 1) · s

On a grid with an offset o per filter it is W = (DequantizeLinear(k, 1) + ½ + o) · 2s.
The product with s is the only one that rounds, and it rounds to what the grid was rounded to:
k + ½ has at most eight bits, which every float type holds. (DequantizeLinear(k, 2s) + s would round
twice, and be off by a unit in the last place here and there.) For float16 and bfloat16 all is
done in float32, where products of such a number and nine bits are exact, and a Cast at the end
rounds; but for the direct form in float16, from operator set 19 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.formats.containers import narrowest
from onnx_esn.formats.integer_weights import Floats
from onnx_esn.formats.qdq_types import Codes, Form, Place, Scalars
from onnx_esn.graph.number_formats import to_bytes

_FLOAT = int(TensorProto.FLOAT)
_PER_AXIS = 13  # first operator set whose DequantizeLinear has a scale per filter,
_HALF_SCALES = 19  # and one that makes float16 (bfloat16 too, but onnxruntime has none for it)


def smallest_form(place: Place, opset: int, scalars: Scalars) -> Form | None:
    """The form that takes the fewest bytes at an operator set; None where there is none."""
    forms = [form for form in _forms(place, opset, scalars) if form is not None]
    return min(forms, key=lambda form: form.size, default=None)


def scalar_tensors(scalars: Scalars, data_type: int) -> list[onnx.TensorProto]:
    """The shared constants themselves, for weights of a float type."""
    used = _computed_type(data_type)
    return [
        TensorProto(name=scalars.one, data_type=_FLOAT, raw_data=to_bytes(1.0, _FLOAT)),
        TensorProto(name=scalars.half, data_type=used, raw_data=to_bytes(0.5, used)),
    ]


def _dequantized_type(data_type: int, opset: int) -> int:
    """The float type that DequantizeLinear makes for weights of a type."""
    half = data_type == TensorProto.FLOAT16 and opset >= _HALF_SCALES
    return data_type if half else _FLOAT


def _computed_type(data_type: int) -> int:
    """The float type of what stands behind DequantizeLinear: not float16, which onnxruntime's CPU
    provider computes as float32 and then does not round."""
    return data_type if data_type == TensorProto.DOUBLE else _FLOAT


def _forms(place: Place, opset: int, scalars: Scalars) -> Iterator[Form | None]:
    if place.offset is None:
        yield _direct(place, opset)
        yield _after(place, opset, scalars, shifted=False)
    if place.half:
        yield _after(place, opset, scalars, shifted=True)


def _direct(place: Place, opset: int) -> Form | None:
    container = narrowest(*place.range, opset)
    single = place.scale.size == 1
    made = _dequantized_type(place.type, opset)
    if (
        container is None
        or not place.plain
        or place.type == TensorProto.DOUBLE
        or not (single or (place.axis is not None and opset >= _PER_AXIS))
    ):
        return None
    scale = np.where(place.scale == 0, 1.0, place.scale)  # of zeros; some runtimes divide by it
    codes = Codes(f"{place.stem}_codes", container, place.n, False, place.n.shape)
    scales = _floats(scale.reshape(() if single else -1), made, f"{place.stem}_scale")
    nodes = _chain(place, codes.name, [("DequantizeLinear", scales.name)], made)
    if not single and place.axis != 1:
        nodes[0].attribute.append(helper.make_attribute("axis", place.axis))
    return _form(container.name, codes, nodes, [scales], place)


def _after(place: Place, opset: int, scalars: Scalars, *, shifted: bool) -> Form | None:
    low, high = ((n - 1) // 2 if n and shifted else n for n in place.range)
    container = narrowest(low, high, opset)
    if container is None:
        return None
    scale = place.scale * 2 if shifted else place.scale
    used = _computed_type(place.type)
    codes = Codes(f"{place.stem}_codes", container, place.n, shifted, place.view)
    others = [_floats(scale, used, f"{place.stem}_scale")]
    steps = [("DequantizeLinear", scalars.one)]
    if used != _FLOAT:
        steps.append(("Cast", ""))
    if shifted and place.offset is not None:
        others.append(_floats(place.offset, used, f"{place.stem}_offset"))
        steps.append(("Add", others[-1].name))
    elif shifted:
        steps.append(("Add", scalars.half))
    steps.append(("Mul", others[0].name))
    if place.view != place.n.shape:
        shape = np.array(place.n.shape, np.int64)
        others.append(numpy_helper.from_array(shape, f"{place.stem}_shape"))
        steps.append(("Reshape", others[-1].name))
    nodes = _chain(place, codes.name, steps, used)
    name = f"{container.name}+{'Add' if shifted else 'Mul'}"
    return _form(name, codes, nodes, others, place)


def _chain(
    place: Place, made: str, steps: Sequence[tuple[str, str]], data_type: int
) -> list[onnx.NodeProto]:
    """Nodes (operator, second input) one after the other; the last one makes the weight.

    They have no names of their own, and go by those of what they make.
    """
    steps = [*steps, ("Cast", "")] if data_type != place.type else steps
    nodes = []
    for number, (op, other) in enumerate(steps, 1):
        out = place.tensor if number == len(steps) else f"{place.stem}_{op.lower()[:5]}"
        node = onnx.NodeProto(op_type=op, input=[made, other] if other else [made], output=[out])
        if op == "Cast":
            to = place.type if number == len(steps) else data_type
            node.attribute.append(helper.make_attribute("to", to))
        nodes.append(node)
        made = out
    return nodes


def _form(
    name: str,
    codes: Codes,
    nodes: list[onnx.NodeProto],
    others: Sequence[onnx.TensorProto],
    place: Place,
) -> Form:
    stored = codes.raw_bytes + sum(len(tensor.raw_data) for tensor in others)
    made = (place.type, place.n.shape)
    return Form(name, codes.container, tuple(nodes), codes, tuple(others), made, stored)


def _floats(values: Floats, data_type: int, name: str) -> onnx.TensorProto:
    return TensorProto(
        name=name, data_type=data_type, dims=values.shape, raw_data=to_bytes(values, data_type)
    )
