"""Shapes of every tensor at a concrete input size, with the shape arithmetic folded on the way.

`onnx.shape_inference` stops at the first Reshape whose target is computed in the graph (39 of the
56 Convs of an exported ShuffleNet). Here each node is inferred on its own, in order, with the
values of its small inputs at hand, and shape arithmetic is evaluated as soon as its inputs are
known; one pass over the nodes suffices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.bodies import DOMAIN
from onnx_esn.graph.constants import Constants, operator_sets
from onnx_esn.graph.facts import SMALL, Array, Facts
from onnx_esn.graph.flow_types import flow_types
from onnx_esn.graph.inputs import Shape, declared_shape, input_sizes
from onnx_esn.graph.intake.limits import VALUES
from onnx_esn.graph.node_types import infer_node
from onnx_esn.graph.small_values import follow_values

# ONNX knows no shape inference for these; the output is like the input.
_SHAPE_KEEPING = (
    *("GroupNormalization", "MeanVarianceNormalization"),
    *("BiasGelu", "FastGelu", "Gelu", "QuickGelu"),
    *("Quant", "BipolarQuant"),  # of QONNX
)
# Their results have as many rows as the data asks for.
COUNTING = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
_SPATIAL_GUESSES = (224, 256, 32, 320, 512, 640, 64, 28, 299, 1024)


def guessed_facts(
    model: onnx.ModelProto,
    constants: Constants,
    *,
    batch: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
    count: int | None = None,
) -> Facts:
    """Facts at `batch`; dynamic axes other than the batch get the first usual size that works."""
    best: Facts | None = None
    refused: ModelError | None = None
    for spatial in (None, *_SPATIAL_GUESSES):
        try:
            sizes = input_sizes(model, batch=batch, shapes=shapes, spatial=spatial)
        except OptionError:
            if spatial is None and shapes is None:
                continue
            raise
        try:
            facts = infer_facts(model, sizes, constants, count)
        except ModelError as error:
            if spatial is None:
                raise
            refused = refused or error  # the guess may be wrong, not the model
            continue
        if best is None or len(facts.failures) < len(best.failures):
            best = facts
        if spatial is None or not facts.failures:
            break
    if best is None:
        assert refused is not None
        raise refused
    return best


def infer_facts(
    model: onnx.ModelProto,
    sizes: Mapping[str, Shape],
    constants: Constants | None = None,
    count: int | None = None,
) -> Facts:
    """Infer shapes, types and small values at the given input sizes.

    Operators without a schema, or whose output shape depends on data, leave their outputs
    unknown unless the model declares them; nothing is guessed but, where it is given, the `count`
    of rows that operators such as NonZero find.
    """
    walk = ShapeWalk(model, sizes, constants or Constants(model), count)
    for node in model.graph.node:
        walk.step(node)
    return walk.facts


class ShapeWalk:
    """Shape inference one node at a time, so that a node can be mended before the next one."""

    def __init__(
        self,
        model: onnx.ModelProto,
        sizes: Mapping[str, Shape],
        constants: Constants,
        count: int | None = None,
    ) -> None:
        self.facts = Facts(sizes=dict(sizes), count=count)
        self.opsets = operator_sets(model)
        self.imports = list(model.opset_import)
        self.types: dict[str, TypeProto] = {}
        self.symbols: dict[str, int] = {}
        for info in model.graph.input:
            if info.name in sizes:
                self._learn(info.name, info.type.tensor_type.elem_type, sizes[info.name])
                named = zip(declared_shape(info) or (), sizes[info.name], strict=False)
                self.symbols.update({d: n for d, n in named if isinstance(d, str)})
        for tensor in model.graph.initializer:
            self.add_initializer(tensor, constants.value)
        self.declared = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}

    def add_initializer(
        self, tensor: onnx.TensorProto, value: Callable[[str], Array] | None = None
    ) -> None:
        """Learn a stored tensor; its value is kept when it is small."""
        self._learn(tensor.name, tensor.data_type, tensor.dims)
        if math.prod(tensor.dims) <= SMALL:
            self.facts.values[tensor.name] = (
                value(tensor.name) if value else numpy_helper.to_array(tensor)
            )

    def assume(self, name: str, elem: int, shape: Sequence[int] | None) -> None:
        """Take the type and shape of a tensor from elsewhere; its value is unknown."""
        self.facts.values.pop(name, None)
        self.facts.shapes.pop(name, None)
        self._learn(name, elem, shape)

    def step(self, node: onnx.NodeProto) -> None:
        """Infer the outputs of the next node."""
        facts = self.facts
        if node.domain == DOMAIN:
            outputs = flow_types(node, self.types, facts.values.get(node.input[0]))
        else:
            outputs = infer_node(node, self.types, facts, self.opsets, self.imports)
        for name in node.output:
            if not name:
                continue
            for known in (facts.shapes, facts.types, facts.values, self.types):
                known.pop(name, None)  # a node that was mended is inferred again
            proto = outputs.get(name)
            if proto is not None and proto.HasField("tensor_type"):
                count = self.facts.count if node.op_type in COUNTING else None
                self._learn(name, proto.tensor_type.elem_type, _static(proto, count))
            if node.op_type == "NonZero" and facts.count and node.input[0] in facts.shapes:
                rank = len(facts.shapes[node.input[0]])  # the inference of ONNX leaves this out
                self._learn(name, TensorProto.INT64, (rank, facts.count))
            if node.op_type in _SHAPE_KEEPING and node.input[0] in facts.shapes:
                self._learn(name, facts.types[node.input[0]], facts.shapes[node.input[0]])
            if name not in facts.shapes and name in self.declared:
                shape = [
                    self.symbols.get(d) if isinstance(d, str) else d
                    for d in declared_shape(self.declared[name]) or [None]
                ]
                if None not in shape:
                    elem = self.declared[name].type.tensor_type.elem_type
                    self._learn(name, elem, [d for d in shape if d is not None])
        follow_values(node, facts, self.opsets.get("", 1))
        for name in node.output:
            if name in facts.values:
                value = facts.values[name]
                elem = facts.types.get(name) or helper.np_dtype_to_tensor_dtype(value.dtype)
                self._learn(name, elem, value.shape)

    def _learn(self, name: str, elem: int, shape: Sequence[int] | None) -> None:
        if shape is not None and min(shape, default=0) < 0:
            raise ModelError(
                f"{name!r} would have the shape {' x '.join(map(str, shape))} at this input size: "
                "give a larger one (--input-shape), or check the sizes in the model"
            )
        if shape is not None and math.prod(shape) > VALUES:
            raise ModelError(
                f"{name!r} would have {math.prod(shape)} values ({' x '.join(map(str, shape))}) at "
                "this input size; no machine holds that: check the sizes in the model"
            )
        self.facts.types[name] = elem
        if shape is not None:
            self.facts.shapes[name] = tuple(shape)
        self.types[name] = _type(elem, None if shape is None else tuple(shape))


@lru_cache(maxsize=1 << 14)
def _type(elem: int, shape: Shape | None) -> TypeProto:
    """A type; never changed, so that tensors of one shape can share it."""
    return helper.make_tensor_type_proto(elem, shape)


def _static(proto: TypeProto, count: int | None) -> list[int] | None:
    """The shape, with `count` for what is unknown; None where that is None."""
    if not proto.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value if d.HasField("dim_value") else count for d in proto.tensor_type.shape.dim]
    known = [d for d in dims if d is not None]
    return known if len(known) == len(dims) else None
