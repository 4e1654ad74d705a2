"""Facts at two sizes: what differs between them moves with the batch or with another open axis.

Everything that is rewritten must hold at both. What is unknown at either size is unknown at both:
a guess that fits by chance must not pass for a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Array, Facts
from onnx_esn.graph.inputs import data_inputs, declared_shape, resized
from onnx_esn.graph.shapes import COUNTING, guessed_facts, infer_facts

# Batches to look at; a model that takes eight frames at a time refuses the first.
_BATCHES = (2, 8, 16)
# Rows that NonZero and its kin are taken to find, at the one size and the other. A small number
# shows what is capped; where none fits, how many there are stays unknown.
_COUNTS = (37, 3)


def two_sizes(
    model: onnx.ModelProto,
    constants: Constants,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Facts, Facts]:
    """Facts at one size and at another.

    Args:
        model: the model.
        constants: its constants; parameters that are computed by way of shapes are added.
        shapes: input shapes for dynamic axes other than the batch.
    """
    facts = _first(model, constants, shapes)
    other = _second(model, constants, facts)
    for a, b in ((facts, other), (other, facts)):
        for name in a.shapes.keys() - b.shapes.keys():
            a.shapes.pop(name, None)
            a.values.pop(name, None)
    for node in model.graph.node:
        if len(node.output) == 1 and node.output[0] not in constants:
            value, again = (f.values.get(node.output[0]) for f in (facts, other))
            if value is not None and again is not None and _is_parameter(value, again):
                constants.adopt(node, value)
    return facts, other


def _is_parameter(value: Array, again: Array) -> bool:
    """Whether a computed value is one for all sizes, and no number on the way to a shape."""
    return value.dtype.kind == "f" and value.size > 1 and np.array_equal(value, again)


def _first(
    model: onnx.ModelProto, constants: Constants, shapes: Mapping[str, Sequence[int]] | None
) -> Facts:
    batches = _BATCHES if _has_open_batch(model) else _BATCHES[:1]
    tries: list[tuple[int, int | None]] = [(batch, _COUNTS[0]) for batch in batches]
    if any(node.op_type in COUNTING for node in model.graph.node):
        tries.append((_BATCHES[0], None))
    found = []
    for batch, count in tries:
        facts = guessed_facts(model, constants, batch=batch, shapes=shapes, count=count)
        if not facts.failures:
            return facts
        found.append(facts)
    return min(found, key=lambda f: len(f.failures))


def _second(model: onnx.ModelProto, constants: Constants, facts: Facts) -> Facts:
    count = None if facts.count is None else _COUNTS[1]
    found: list[Facts] = []
    refused: ModelError | None = None
    for more, double in product((_unlike, _alike, _same), (False, True)):
        batch = (2).__mul__ if double else (1).__add__
        sizes = resized(model, facts.sizes, batch, more)
        if found and any(sizes == f.sizes for f in found):
            continue
        try:
            other = infer_facts(model, sizes, constants, count)
        except ModelError as error:  # not at this size
            refused = refused or error
            continue
        if len(other.failures) <= len(facts.failures):
            return other
        found.append(other)
    if refused is not None and not found:
        raise refused
    return min(found, key=lambda f: len(f.failures))


def _unlike(n: int, axis: int) -> int:
    """Height and width change differently, or one could pass for the other."""
    return n + 32 * max(1, axis - 1)


def _alike(n: int, axis: int) -> int:
    return n + 32


def _same(n: int, axis: int) -> int:
    return n


def _has_open_batch(model: onnx.ModelProto) -> bool:
    declared = [declared_shape(info) for info in data_inputs(model)]
    return any(d and not isinstance(d[0], int) for d in declared)
