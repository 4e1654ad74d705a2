"""The record a pruned model carries of which original filters each layer has left.

A JSON object in the model's metadata, ``{node name: [indices]}`` (long runs as ``"first-last"``),
with a line for each layer and BatchNormalization that lost some, so that the model can be compared
with the one it came from.
"""

from __future__ import annotations

import json

import numpy as np
import onnx

from onnx_esn.graph import metadata
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.index_runs import packed, unpacked

KEPT_KEY = "onnx_esn.kept"
_NAME = KEPT_KEY.removeprefix(metadata.PREFIX)


def record_kept(analysis: Analysis, model: onnx.ModelProto, removed: Mask) -> None:
    """Write the record into the rewritten `model`; an earlier pruning's record is composed."""
    kept = _earlier(analysis.model)
    first = analysis.first_labels
    lines = {
        x.name: np.arange(first[x.index], first[x.index] + x.filters)
        for x in analysis.layers
        if x.index in first
    }
    for name, node in zip(analysis.names, analysis.model.graph.node, strict=True):
        if node.op_type == "BatchNormalization" and node.input[0] in analysis.propagation.labels:
            lines[name] = analysis.propagation.labels[node.input[0]].reshape(-1)
    for name, labels in lines.items():
        if removed[labels].any():
            before = kept.get(name, range(labels.size))
            if len(before) != labels.size:
                before = range(labels.size)  # not this layer's: another tool renamed nodes
            kept[name] = [int(before[int(i)]) for i in np.flatnonzero(~removed[labels])]
    short = {name: packed(indices) for name, indices in kept.items()}
    metadata.replace(model, {_NAME: json.dumps(short, sort_keys=True, separators=(",", ":"))})


def _earlier(model: onnx.ModelProto) -> dict[str, list[int] | range]:
    try:
        found = json.loads(metadata.read(model).get(_NAME, "{}"))
        return {str(k): unpacked(v) for k, v in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # damaged: as good as none
