"""What is known of each tensor at one input size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from onnx_esn.graph.inputs import Shape

Array = NDArray[Any]

# Values up to this many elements are followed through the graph: shapes, axes, pads, indices.
SMALL = 8192


@dataclass
class Facts:
    """What is known of each tensor at one input size.

    Attributes:
        sizes: the shape each graph input was given.
        shapes: full shape by tensor name; a missing name means that the shape depends on data or
            on an operator without a schema.
        types: element type (`TensorProto.DataType`) by tensor name.
        values: values of small tensors that do not depend on the data.
        failures: (node description, reason) of the nodes that shape inference refused.
        count: how many rows operators such as NonZero were taken to find; None leaves that, and
            what follows from it, unknown.
    """

    sizes: dict[str, Shape]
    count: int | None = None
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
