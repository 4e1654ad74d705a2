"""Cut a model into blocks at the tensors that everything passes through.

Between two such tensors lies one residual block, or what an architecture has in its place: small
enough to be learned quickly and large enough that its layers can make each other's errors good.

Source: Li et al. (2021), "BRECQ: pushing the limit of post-training quantization by block
reconstruction", section 3.2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.inputs import Shape

LEAST_LAYERS = 2


@dataclass(frozen=True)
class Block:
    """A part of a model.

    Attributes:
        inputs: tensors it reads: the model's inputs, or the cut before it.
        outputs: the cut behind it, or the model's outputs.
        layers: names of the learned layers in it, in graph order.
        model: the part as a model of its own.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    model: onnx.ModelProto


def find_blocks(
    model: onnx.ModelProto,
    facts: Facts,
    feeds: Collection[str],
    layers: Mapping[str, str],
    allowed: Collection[str],
) -> list[Block]:
    """The blocks, in order; together they hold all the layers.

    Args:
        model: the model.
        facts: its shapes and small values, at the size it will run at.
        feeds: names of its inputs.
        layers: name of the learned layer by the output of its node.
        allowed: tensors at which the model may be cut.
    """
    outputs = tuple(o.name for o in model.graph.output)
    spans = _spans(model.graph, facts, feeds, layers, allowed)
    blocks: list[Block] = []
    before: tuple[str, ...] = tuple(sorted(feeds))
    for cut, held in spans:
        after = outputs if cut is None else (cut,)
        part = extract(model, facts, before, after)
        inputs = tuple(info.name for info in part.graph.input)
        blocks.append(Block(inputs, after, held, part))
        before = after
    return blocks


def _spans(
    graph: onnx.GraphProto,
    facts: Facts,
    feeds: Collection[str],
    layers: Mapping[str, str],
    allowed: Collection[str],
) -> list[tuple[str | None, tuple[str, ...]]]:
    """(cut behind it, layers in it) of each block; None: the model's end."""
    last = {o.name: len(graph.node) for o in graph.output}
    for i, node in enumerate(graph.node):
        for name in (*node.input, *captured(node)):
            last[name] = max(last.get(name, -1), i)
    live = {name for name in feeds if name in last}
    spans: list[tuple[str | None, tuple[str, ...]]] = []
    held: list[str] = []
    for i, node in enumerate(graph.node):
        reads = (*node.input, *captured(node))
        if any(name in live for name in reads):
            made = (n for n in node.output if n and n not in facts.values and n in last)
            live.update(made)
        held += [layers[name] for name in node.output if name in layers]
        live = {name for name in live if last[name] > i}
        only = next(iter(live)) if len(live) == 1 else None
        ends = only is not None and last[only] == len(graph.node)
        if only in allowed and not ends and len(held) >= LEAST_LAYERS:
            spans.append((only, tuple(held)))
            held = []
    if held:
        spans.append((None, tuple(held)))
    elif spans:  # what is left has nothing to learn
        spans[-1] = (None, spans[-1][1])
    return spans


def extract(
    model: onnx.ModelProto, facts: Facts, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The nodes between tensors; values that are known at this size are stored."""
    made = {name: i for i, node in enumerate(model.graph.node) for name in node.output if name}
    stored = {t.name: t for t in model.graph.initializer}
    known, nodes = Constants(model), set[int]()
    reached: set[str] = set()
    pending = list(outputs)
    part = onnx.ModelProto(ir_version=max(model.ir_version, 8))
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name
    while pending:
        name = pending.pop()
        if not name or name in reached:
            continue
        reached.add(name)
        if name in inputs:
            continue
        if name in stored:
            part.graph.initializer.append(stored[name])
        elif name in facts.values and name not in known:
            part.graph.initializer.append(numpy_helper.from_array(facts.values[name], name))
        elif name in made and made[name] not in nodes:
            node = model.graph.node[made[name]]
            nodes.add(made[name])
            pending += [*node.input, *captured(node)]
    part.graph.node.extend(model.graph.node[i] for i in sorted(nodes))
    for names, place in ((inputs, part.graph.input), (outputs, part.graph.output)):
        for name in names:
            if name in reached:
                shape: Shape = facts.shapes[name]
                open_batch: list[str | int | None] = ["N", *shape[1:]]
                info = onnx.helper.make_tensor_value_info(name, facts.types[name], open_batch)
                place.append(info)
    return part
