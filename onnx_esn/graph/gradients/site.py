"""What the rule of an operator gets to see of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.inputs import Shape


class NoGradientError(Exception):
    """A node through which no gradient is known; says why."""


@dataclass(frozen=True)
class Site:
    """A node and the gradients that have arrived at it.

    Attributes:
        tape: where nodes go.
        constants: of the model.
        node: the node.
        grads: gradient by output, None where nothing depends on it.
        needs: by input, whether its gradient is wanted.
    """

    tape: Tape
    constants: Constants
    node: onnx.NodeProto
    grads: Sequence[str | None]
    needs: Sequence[bool]

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Attributes by name."""
        return attributes(self.node)

    @property
    def x(self) -> str:
        """First input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """First output."""
        return str(self.node.output[0])

    @property
    def dy(self) -> str:
        """Gradient of the first output.

        Raises:
            NoGradientError: only other outputs are used.
        """
        if self.grads[0] is None:
            raise NoGradientError("only a side output is used")
        return self.grads[0]

    def shape(self, name: str) -> Shape:
        """Shape of a tensor around the node; raises `NoGradientError` where it is unknown."""
        found = self.tape.facts.shapes.get(name)
        if found is None:
            raise NoGradientError("a shape is unknown")
        return found

    def optional(self, index: int) -> str:
        """Name of an input, "" where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def value(self, index: int) -> npt.NDArray[Any] | None:
        """Value of a constant input, None where it is left out.

        Raises:
            NoGradientError: it depends on the data.
        """
        name = self.optional(index)
        if not name:
            return None
        if name in self.tape.facts.values:
            return np.asarray(self.tape.facts.values[name])
        if name in self.constants:
            return self.constants.value(name)
        raise NoGradientError(f"input {index} depends on the data")

    def only_first(self, gradient: str) -> list[str | None]:
        """The gradients of a node that passes one to its first input only."""
        return [gradient, *[None] * (len(self.node.input) - 1)]


Rule = Callable[[Site], Sequence[str | None]]
