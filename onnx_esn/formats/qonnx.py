"""Format `qonnx`: a QONNX Quant node on each weight, with a scale and a zero point per filter.

The float weights stay, as QONNX has it, and lie on the levels of their Quant already: a reader that
skips the node computes the same. QONNX has one bit width per tensor; see `qonnx_forms` for what
that makes of filters with different bits. The bits of each filter are in the metadata
(`onnx_esn.quant_bits`), and the width of each weight is annotated in the way of the `qonnx`
package, for its cost analysis. onnxruntime has no Quant: see `qonnx_folding`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from onnx_esn.errors import ModelError
from onnx_esn.formats.options import FormatOptions
from onnx_esn.formats.qonnx_forms import QuantForm, quant_form, shifted_form
from onnx_esn.formats.qonnx_nodes import BITS, WeightQuant, add_quants
from onnx_esn.formats.written import LayerFormat, Written
from onnx_esn.graph import metadata
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import subgraphs
from onnx_esn.graph.layers import OPERATORS, Layer, find_layers
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.shapes import guessed_facts
from onnx_esn.graph.weights import StoredWeight, read_weight

_DEFAULT = FormatOptions()
# Of weights scaled once more (a folded norm recalibrated), which are rounded twice.
_TOLERANCE = 2 * EPSILON[TensorProto.FLOAT]


def write(
    model: onnx.ModelProto, options: FormatOptions = _DEFAULT, *, zero_points: bool = True
) -> Written:
    """Return a copy of a model whose weights lie on grids, with these as Quant nodes.

    Args:
        model: a `fake` model; layers whose weights lie on no grid stay as they are.
        options: speak of the operator set of ONNX, which this format leaves alone.
        zero_points: whether mid-rise grids may have zero points. Without, they take a bit more.

    Raises:
        ModelError: a weight on a grid is not read as float32, the one type that Quant makes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = Constants(copy)
    layers = find_layers(copy, constants, guessed_facts(copy, constants, batch=1))
    quants: list[WeightQuant] = []
    reports: dict[int, LayerFormat] = {}
    off = 0
    for shared in _sharing(layers):
        weight = read_weight(shared[0], constants)
        reason = _why_float(shared[0], weight, constants, zero_points)
        if not reason:
            form = _form(weight, zero_points)
            quant = WeightQuant(shared, weight, form)
            errors = quant.errors()
            if (errors <= np.abs(quant.operands["x"]) * _TOLERANCE).all():
                off += int((errors > 0).sum())
                quants.append(quant)
                reports |= _reports(shared, _report(quant))
                continue
            reason = "no float32 scale gives its values"
            if weight.type != TensorProto.FLOAT:
                reason += f", which were rounded to {weight.type_name}"
        size = weight.W.size * weight.width // 8
        form_name = "Quant" if _has_quant(shared[0], constants) else "float"
        reports |= _reports(shared, LayerFormat("", form_name, weight.type_name, size, reason))
    if quants:
        add_quants(copy, constants, quants)
    ordered = tuple(reports[index] for index in sorted(reports))
    return Written(copy, ordered, tuple(_notes(copy, quants, off)))


def _sharing(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    """The layers that read the same tensor as the same filters, together."""
    together: dict[tuple[str, int, int], list[Layer]] = defaultdict(list)
    for layer in layers:
        groups = layer.groups if layer.op == "ConvTranspose" else 1
        together[layer.weight, layer.filter_axis, groups].append(layer)
    return (tuple(found) for found in together.values())


def _form(weight: StoredWeight, zero_points: bool) -> QuantForm:
    if weight.shifted is not None:
        return shifted_form(weight.shifted.codes, weight.shifted.step, weight.shifted.offset)
    assert weight.codes is not None
    assert weight.step is not None
    return quant_form(weight.codes, weight.step, weight.quantizer, zero_points=zero_points)


def _why_float(layer: Layer, weight: StoredWeight, constants: Constants, zero_points: bool) -> str:
    """Why a weight gets no Quant; "" where it gets one."""
    if _has_quant(layer, constants):
        return "it has been a Quant before"
    if weight.shifted is not None and not zero_points:
        return "its grid is shifted, which takes zero points"
    if weight.codes is None and weight.shifted is None:
        return "its weights lie on no grid"
    if weight.read_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(weight.read_type).lower()
        raise ModelError(
            f"{layer.name}: its weights are {name}, and QONNX's Quant makes float32 only; "
            "convert the model to float32, or take the format fake or qdq"
        )
    return ""


def _has_quant(layer: Layer, constants: Constants) -> bool:
    return layer.weight in constants.producer and is_quant(constants.producer[layer.weight])


def _report(quant: WeightQuant) -> LayerFormat:
    bits = quant.weight.filter_bits
    why = f"filters of {bits.min()} to {bits.max()} bits: QONNX has one width per tensor"
    size = sum(value.nbytes for value in quant.operands.values())
    return LayerFormat("", "Quant", "float32", size, why if quant.mixed else "")


def _reports(layers: Sequence[Layer], report: LayerFormat) -> dict[int, LayerFormat]:
    """The report of a weight for each of its layers; the bytes count at the first."""
    return {
        layer.index: replace(report, name=layer.name, bytes=0 if i else report.bytes)
        for i, layer in enumerate(layers)
    }


def _notes(model: onnx.ModelProto, quants: Sequence[WeightQuant], off: int) -> Iterator[str]:
    mixed = sum(quant.mixed for quant in quants)
    if mixed:
        yield (
            f"{mixed} of {len(quants)} weights have filters of different bits; QONNX has one width "
            "per tensor: it is the widest filter's, and the bits of each filter are in the "
            f"metadata ({metadata.PREFIX}{BITS})"
        )
    if any(quant.form.zero_point.any() for quant in quants):
        yield (
            "mid-rise grids have the zero point (2^b - 1)/2; the datatype inference of qonnx 1.0 "
            "takes what has a zero point for float32"
        )
    if off:
        yield (
            f"{off} weights move by a relative 2.4e-07 at most: no float32 step gives them to the "
            "last bit (they were scaled after they had been quantized)"
        )
    for node in model.graph.node:
        inside = _inside(node)
        if inside:
            what = " and ".join(f"{count} {op}" for op, count in inside.items())
            yield f"{node_name(node)}: the {what} inside this {node.op_type} stay as they are"


def _inside(node: onnx.NodeProto) -> Counter[str]:
    """The layers inside the subgraphs of a node, by operator."""
    found: Counter[str] = Counter()
    for graph in subgraphs(node).values():
        for inner in graph.node:
            found[inner.op_type] += inner.op_type in OPERATORS
            found += _inside(inner)
    return +found
