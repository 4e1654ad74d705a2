"""`inspect`: what a model costs, layer by layer, and which channels of it can be removed.

MACs are the multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul with weights, for one
sample; positions in the zero padding count, biases and activations do not. With the bits of each
filter they give

    ESN'_d = Σ_filters MACs(filter)·bits(max|W_int| of the filter)      ("MAC·bit")
    ESN_d  = Σ_weights c·bits(W_int),   ESN_a = Σ_weights c·W_int²,     c = MACs per weight

and the same with c = 1 for memory. A layer off the mid-rise grid costs the width it is stored in
(32, 16, 8 bits) for each weight, in ESN_d and in ESN'_d, all-zero filters included, because that is
what is stored and multiplied. ESN_a has no meaning there: it counts amplitudes in steps of Δ, and
such a layer has no Δ. Of a weight behind DequantizeLinear the integers less their zero point are
the codes where no grid holds them, at no more bits than they are stored in.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from onnx_esn.graph.layers import Layer
from onnx_esn.graph.model_file import initializer_bytes, load_model
from onnx_esn.graph.model_source import ModelSource
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.weights import StoredWeight, read_weight
from onnx_esn.numerics.esn import esn_prime
from onnx_esn.passes.inspecting.groups import inspect_groups
from onnx_esn.passes.inspecting.result import (
    Inspection,
    LayerInspection,
    Totals,
    Unresolved,
)
from onnx_esn.passes.layers.costs import (
    InputShape,
    measured_view,
    not_counted,
    total_cost,
    total_macs,
)

__all__ = ["Inspection", "inspect", "total_cost", "total_macs"]


def inspect(
    model: ModelSource,
    *,
    input_shape: InputShape | None = None,
    groups: bool = True,
) -> Inspection:
    """Return what a model costs.

    Args:
        model: a model (`onnx.ModelProto`, `onnx_ir.Model`) or the path of one.
        input_shape: shape of the input (with the batch), or shapes by name; needed where axes
            other than the batch are open.
        groups: whether to look for channel groups, the slow part.

    Raises:
        OptionError: the shape does not fit, or is missing.
        ModelError: the model cannot be read.
    """
    proto = standard_form(load_model(model, outside=True))
    view = measured_view(proto, input_shape)
    layers, tensors = [], []
    for layer in view.layers:
        weight = read_weight(layer, view.constants)
        layers.append(_layer(layer, weight))
        tensors.append(weight.tensor)
    unresolved = [
        Unresolved(x.name, "the shape of its output depends on data or on an unknown operator")
        for x in view.layers
        if x.macs is None
    ]
    unresolved += [Unresolved(s.node, s.reason) for s in not_counted(proto, view)]
    return Inspection(
        input_shapes=dict(view.facts.sizes),
        layers=tuple(layers),
        totals=_totals(layers, tensors, initializer_bytes(proto)),
        unresolved=tuple(unresolved),
        groups=inspect_groups(proto, view) if groups else None,
    )


def _layer(layer: Layer, weight: StoredWeight) -> LayerInspection:
    bits, per_filter = weight.filter_bits, layer.macs_per_filter
    count = Counter(int(b) for b in bits)
    K = weight.shape[1]
    c = None if per_filter is None or not K else per_filter / K
    # What one MAC per weight, or one per stored weight, costs.
    quantized = weight.step is not None or weight.counted is not None
    digital, analogue = _code_costs(weight) if quantized else (float(K * bits.sum()), None)
    out = layer.output_shape
    return LayerInspection(
        name=layer.name,
        op=layer.op,
        weight=layer.source,
        filters=layer.filters,
        channels_in=layer.channels_in,
        channels_out=layer.filters,
        groups=layer.groups,
        kernel=layer.kernel,
        output_size=None
        if out is None
        else tuple(n for axis, n in enumerate(out) if axis not in (0, layer.channel_axis)),
        macs=layer.macs,
        parameters=layer.parameters,
        storage=weight.type_name,
        storage_bits=weight.width,
        quantized=quantized,
        bits=dict(sorted(count.items())),
        filter_bits=tuple(int(b) for b in bits),
        esn_a=None if c is None or analogue is None else c * analogue,
        esn_d=None if c is None else c * digital,
        esn_prime=None if per_filter is None else esn_prime([per_filter] * layer.filters, bits),
        esn_a_memory=analogue,
        esn_d_memory=digital,
        esn_prime_memory=float(K * bits.sum()),
    )


def _code_costs(weight: StoredWeight) -> tuple[float, float]:
    """ESN_d and ESN_a of a layer's codes, in memory: one block of filters after the other."""
    digital, analogue = np.zeros(weight.shape[0]), np.zeros(weight.shape[0])
    for rows, codes in weight.counted_blocks():
        digital[rows] = weight.code_bits(codes).sum(axis=1)
        analogue[rows] = np.einsum("mk,mk->m", codes, codes)
    return float(digital.sum()), float(analogue.sum())


def _totals(layers: list[LayerInspection], tensors: list[str], stored: int) -> Totals:
    # A weight that several layers share is computed with by each, and stored once.
    first = dict(zip(reversed(tensors), reversed(layers), strict=True))
    stored_once = list(first.values())
    macs = sum(x.macs or 0 for x in layers)
    parameters = sum(x.parameters for x in stored_once)
    prime = sum(x.esn_prime or 0.0 for x in layers)
    prime_memory = sum(x.esn_prime_memory for x in stored_once)
    quantized = [x for x in layers if x.quantized]
    return Totals(
        layers=len(layers),
        quantized_layers=len(quantized),
        macs=macs,
        parameters=parameters,
        initializer_bytes=stored,
        bits_per_mac=prime / macs if macs else None,
        bits_per_weight=prime_memory / parameters if parameters else None,
        esn_a=sum(x.esn_a or 0.0 for x in quantized) if quantized else None,
        esn_d=sum(x.esn_d or 0.0 for x in layers),
        esn_prime=prime,
        esn_a_memory=sum(x.esn_a_memory or 0.0 for x in stored_once) if quantized else None,
        esn_d_memory=sum(x.esn_d_memory for x in stored_once),
        esn_prime_memory=prime_memory,
    )
