"""Plant redundant channels into a model: zero filters, equal filters, weights that read nothing."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.channels.labels import line


def stored(model, name):
    return next((t for t in model.graph.initializer if t.name == name), None)


def change(model, name, edit):
    """Rewrite a stored tensor by a function of its value; False where it is not stored."""
    tensor = stored(model, name)
    if tensor is None:
        return False
    value = numpy_helper.to_array(tensor).copy()
    value = edit(value)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return True


def silence(model, weight, rows, axis=0):
    """Set filters of a weight to zero: what they emit is their bias."""

    def edit(W):
        W[(slice(None),) * axis + (rows,)] = 0
        return W

    assert change(model, weight, edit)
    return model


def silence_layer(model, layer, rows):
    def edit(W):
        flat = layer.as_filters(W).copy()
        flat[rows] = 0
        return layer.from_filters(flat)

    return change(model, layer.weight, edit)


def shut_layer(model, layer, rows, scale):
    """Small and negative filters: behind some activations, they never open."""

    def edit(W):
        flat = layer.as_filters(W).copy()
        flat[rows] = -scale * np.abs(flat[rows])
        return layer.from_filters(flat)

    return change(model, layer.weight, edit)


def deafen(model, claim, slots):
    """Set the slices of a weight that read some channels to zero."""
    axis = next(a for a, n in enumerate(claim.labels.shape) if n > 1)
    return change(model, claim.tensor, lambda W: _set(W, axis, slots, 0))


def _set(W, axis, slots, value):
    W[(slice(None),) * axis + (slots,)] = value
    return W


def copy_label(model, claims, source, target):
    """Give one label the parameters of another: rows and all per-channel parameters."""
    for claim in claims:
        if claim.role == "input":
            continue
        for axis, n in enumerate(claim.labels.shape):
            labels = line(claim.labels, axis)
            a, b = np.flatnonzero(labels == source), np.flatnonzero(labels == target)
            if n > 1 and a.size and a.size == b.size:
                change(model, claim.tensor, lambda W, k=axis, i=a, j=b: _copy(W, k, i, j))


def _copy(W, axis, source, target):
    W = np.moveaxis(W, axis, 0)
    W[target] = W[source]
    return np.moveaxis(W, 0, axis)


def plant(model, rng):
    """Zero filters, filters that are equal, unread channels at random; the model, changed."""
    analysis = analyse(model)
    p = analysis.propagation
    first = analysis.first_labels
    layers = [x for x in analysis.layers if x.index in first]
    for layer in layers:
        if rng.random() < 0.4:
            silence_layer(model, layer, rng.random(layer.filters) < 0.3)
        if rng.random() < 0.3:
            shut_layer(
                model, layer, rng.random(layer.filters) < 0.3, rng.choice((1.0, 1e-3, 1e-10))
            )
    for claim in p.claims:
        if claim.role == "input" and claim.labels.size > 1 and rng.random() < 0.3:
            n = max(claim.labels.shape)
            deafen(model, claim, np.flatnonzero(rng.random(n) < 0.4))
    for layer in layers:
        if layer.filters > 1 and rng.random() < 0.6:
            for _ in range(rng.integers(1, 4)):
                i, j = rng.choice(layer.filters, 2, replace=False) + first[layer.index]
                copy_class(model, analysis, int(i), int(j))
    return model


def copy_class(model, analysis, source, target):
    """Make the class of a label equal to another one's, label by label where they pair up."""
    of = analysis.classes.of
    a, b = (np.flatnonzero(of == of[k]) for k in (source, target))
    if a.size != b.size or of[source] == of[target]:
        a, b = [source], [target]
    for s, t in zip(a, b, strict=True):
        copy_label(model, analysis.propagation.claims, int(s), int(t))
