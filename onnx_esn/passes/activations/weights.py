"""The weights of one layer as integers, ready for an integer kernel: W = scale·codes, per filter.

The grid that the weights lie on is kept. Mid-rise codes k + ½ are odd numbers 2k + 1 of half a
step, which need no zero point and fit int8 up to 7 bits; mid-tread codes fit as they are. A factor
per filter (the BatchNormalization behind, alpha of a Gemm) goes into the scales, its sign into the
codes: the integers stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layer_weight import StoredWeight
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.norms.batchnorm import batchnorm_after
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.numerics.row_blocks import all_finite
from onnx_esn.outside import any_outside
from onnx_esn.passes.activations.absorption import bias_behind, padding_before
from onnx_esn.shelf import Shelved

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.signedinteger[Any]]

INT8, INT16 = 127, 32767
# Products add up in 32 bits, half of which are left to the bias.
_MOST_TERMS = 2**30 // (255 * INT8)


@dataclass(frozen=True)
class IntegerLayer:
    """A layer with integer weights.

    Attributes:
        layer: the layer.
        codes: gives the integers (M, K), in the order of `Layer.as_filters`, in the type they are
            stored in; those of a large layer may wait in a file.
        scale: (M,) float32 values; 0 for a filter of zeros (see `bias`).
        bias: (M,) float, None without one.
        output: the tensor it makes, that of what it absorbed.
        absorbed: indices of the nodes whose work it does: BatchNormalization, or Add of a bias.
        source: the tensor it reads, that of the Pad it absorbed.
        padded: the tensor it read before.
        pads: its pads with those of that Pad; None: as they are.
        rounded: (M,) whether the filter's codes are the nearest ones, not those of its grid.
        on_grid: whether the weights lay on a grid.
        odd: whether all codes of a filter are odd (mid-rise), or all 0.
        top: largest magnitude of a code, `INT8` or `INT16`.
    """

    layer: Layer
    codes: Callable[[], Integers]
    scale: Floats
    bias: Floats | None
    output: str
    absorbed: tuple[int, ...]
    source: str
    padded: str
    pads: tuple[int, ...] | None
    rounded: npt.NDArray[np.bool_]
    on_grid: bool
    odd: bool
    top: int


def integer_layer(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    facts: Sequence[Facts],
    layer: Layer,
    *,
    wide: bool = False,
) -> IntegerLayer | str:
    """The layer with integer weights, or why it has to stay float.

    Args:
        model: the model.
        readers: who reads each tensor, see `graph.readers.readers`.
        constants: its constants.
        facts: what is known of it at two sizes.
        layer: the layer.
        wide: codes that do not fit int8 are kept in int16, not rounded.
    """
    reason = _unfit(model, constants, layer)
    if reason:
        return reason
    attrs = attributes(model.graph.node[layer.index])
    gain = np.full(layer.filters, float(attrs.get("alpha", 1.0)))
    bias = _bias(constants, layer, float(attrs.get("beta", 1.0)))
    if isinstance(bias, str):
        return bias
    output = layer.output
    absorbed: tuple[int, ...] = ()
    norm = batchnorm_after(model, readers, constants, layer)
    if norm is not None:
        node = model.graph.node[readers[layer.output][0]]
        if not any(node.output[1:]):
            start = 0.0 if bias is None else bias
            gain, bias = gain * norm.gain, (start - norm.mean) * norm.gain + norm.beta
            output, absorbed = node.output[0], (readers[layer.output][0],)
    elif layer.op == "MatMul":
        found = bias_behind(model, readers, constants, facts[0], layer)
        if found is not None:
            index, bias = found
            output, absorbed = model.graph.node[index].output[0], (index,)
    weight = read_weight(layer, constants)
    if not all_finite(weight.values) or not (bias is None or np.isfinite(bias).all()):
        return "its weights or biases are not finite (NaN or infinity)"
    if weight.shape[1] > _MOST_TERMS:
        return f"its filters have {weight.shape[1]} weights: their sum may not fit 32 bits"
    on_grid = weight.step is not None
    parts = [np.abs(codes).max(axis=1, initial=0.0) for _, codes in _blocks(weight)]
    peak = np.concatenate([np.zeros(0), *parts])
    top = INT16 if wide and on_grid and (peak > INT8).any() else INT8
    rounded = peak > (top if on_grid else 0)
    factor = np.ones(layer.filters)
    integers = np.zeros(weight.shape, np.int8 if top == INT8 else np.int16)
    for rows, codes in _blocks(weight):
        far = rounded[rows]
        factor[rows][far] = _int8_factor(codes[far], peak[rows][far], search=on_grid)
        integers[rows] = np.rint(codes / factor[rows, None]) * np.sign(gain[rows, None])
    unit = _unit(weight)
    scale = np.where(integers.any(axis=1), unit * factor * np.abs(gain), 0.0)
    scale = scale.astype(np.float32).astype(np.float64)
    integers[scale == 0] = 0
    source, pads = padding_before(model, facts, layer) or (
        model.graph.node[layer.index].input[0],
        None,
    )
    return IntegerLayer(
        layer=layer,
        codes=Shelved(integers, outside=any_outside(model)),
        scale=scale,
        bias=bias,
        output=output,
        absorbed=absorbed,
        source=source,
        padded=model.graph.node[layer.index].input[0],
        pads=pads,
        rounded=rounded,
        on_grid=on_grid,
        odd=weight.quantizer == MID_RISE.name and not rounded.any(),
        top=top,
    )


def _blocks(weight: StoredWeight) -> Iterator[tuple[slice, Floats]]:
    """Filters as multiples of `_unit`, a few at a time: integers where they lie on a grid."""
    for rows, W, codes in weight.blocks():
        if codes is None:
            yield rows, W
        else:
            yield rows, 2.0 * codes if weight.quantizer == MID_RISE.name else codes


def _unit(weight: StoredWeight) -> Floats:
    """(M,): of mid-rise filters half a step, of others a step; 1 off the grid."""
    if weight.step is None:
        return np.ones(weight.shape[0])
    return weight.step / 2 if weight.quantizer == MID_RISE.name else weight.step


def _int8_factor(codes: Floats, peak: Floats, *, search: bool) -> Floats:
    """What to divide filters (m, K) of these peaks by, to round them to int8.

    The peak over 127; but odd codes of more than 7 bits all come near to halves then, and are
    rounded the same way: half a step is lost of every weight. Of the larger factors, up to twice
    that, the one of least squared error.
    """
    if not search:
        return peak / INT8
    best, least = peak / INT8, np.full(peak.shape, np.inf)
    for top in range(INT8, INT8 // 2, -1):
        factor = peak / top
        error = np.square(np.rint(codes / factor[:, None]) * factor[:, None] - codes).sum(axis=1)
        best = np.where(error < least, factor, best)
        least = np.minimum(error, least)
    return best


def _unfit(model: onnx.ModelProto, constants: Constants, layer: Layer) -> str:
    """Why no integer kernel takes the layer, or ""."""
    if layer.op not in ("Conv", "Gemm", "MatMul"):
        return f"onnxruntime has no integer {layer.op}"
    if layer.slot != 1:
        return f"its weight is the first factor of the {layer.op}"
    if len(layer.weight_shape) != 2 and layer.op != "Conv":
        return "its weight is a stack of matrices"
    if layer.op == "Gemm" and attributes(model.graph.node[layer.index]).get("transA", 0):
        return "it transposes its input (transA)"
    dtype = constants.value(layer.weight).dtype
    return "" if dtype == np.float32 else f"its weights are {dtype.name}, not float32"


def _bias(constants: Constants, layer: Layer, beta: float) -> Floats | str | None:
    """The bias (M,), None without one, or why the layer has to stay float."""
    if not layer.bias or beta == 0:
        return None
    if layer.bias not in constants:
        return "its bias is computed from the data"
    value = constants.value(layer.bias)
    if value.size not in (1, layer.filters) or (value.ndim and value.shape[-1] != value.size):
        return "its bias is a matrix"
    return np.broadcast_to(beta * value.astype(np.float64).reshape(-1), (layer.filters,))
