"""The objective and the costs of a selection, from the weights, loop by loop."""

from __future__ import annotations

import numpy as np


def pairs_of(layer, W):
    """(filter, input channel, weights) of a plain Conv, ConvTranspose, Gemm or MatMul."""
    if layer.op in ("Gemm", "MatMul"):
        rows = W if layer.filter_axis == 0 else W.T
        for j in range(rows.shape[0]):
            for i in range(rows.shape[1]):
                yield j, i, rows[j, i]
        return
    g = layer.groups
    for j in range(layer.filters):
        per = layer.channels_in // g
        group = j // (layer.filters // g)
        for i in range(per):
            if layer.op == "Conv":
                yield j, group * per + i, W[j, i]
            else:
                yield j, group * per + i, W[group * per + i, j % (layer.filters // g)]


def objective(analysis, removed):
    """Σ_l u_lᵀ I_l v_{l−1}, and the number of layers counted."""
    total, counted = 0.0, 0
    first, labels = analysis.first_labels, analysis.propagation.labels
    for layer in analysis.layers:
        if layer.index not in first:
            continue
        node = analysis.model.graph.node[layer.index]
        data = node.input[0] if layer.kernel else node.input[1 - layer.slot]
        read = labels.get(data)
        v = np.ones(layer.channels_in)
        if read is not None and read.size == layer.channels_in:
            v = 1.0 - removed[read.reshape(-1)]
        u = 1.0 - removed[first[layer.index] + np.arange(layer.filters)]
        W = analysis.constants.value(layer.weight).astype(np.float64)
        matrix = np.zeros((layer.filters, layer.channels_in))
        for j, i, weights in pairs_of(layer, W):
            matrix[j, i] += np.abs(weights).sum()
        norm = np.linalg.norm(matrix)
        if norm > 0:
            total += u @ matrix @ v / norm
        counted += 1
    return total, counted
