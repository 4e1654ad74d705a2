"""The equation of an Einsum: which letter stands for which axis of which tensor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.evaluate import attributes

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Equation:
    """Axes in a common space that has one for each letter.

    Attributes:
        axes: per input, which common axis each of its axes is.
        out: the same of the output.
        rank: number of letters.
    """

    axes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    rank: int

    @property
    def contracted(self) -> list[int]:
        """Axes that are summed over."""
        return [a for a in range(self.rank) if a not in self.out]

    @property
    def kept(self) -> list[int]:
        """Axes of the output."""
        return list(self.out)

    def spread(self, x: NDArray[Any], index: int) -> NDArray[Any]:
        """A compact array of input `index`, laid out in the common space."""
        order = np.argsort(self.axes[index])
        shape = [1] * self.rank
        for axis, n in zip(self.axes[index], x.shape, strict=True):
            shape[axis] = n
        return np.transpose(x, order).reshape(shape)

    def part(self, x: NDArray[Any], index: int) -> NDArray[Any]:
        """Back from the common space to input `index` (x does not vary along its other axes)."""
        return self._picked(x, self.axes[index])

    def gathered(self, x: NDArray[Any]) -> NDArray[Any]:
        """Back from the common space to the output."""
        return self._picked(x, self.out)

    def _picked(self, x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
        rest = [a for a in range(self.rank) if a not in axes]
        x = x[tuple(slice(0, 1) if a in rest else slice(None) for a in range(self.rank))]
        return np.transpose(x, [*axes, *rest]).reshape([x.shape[a] for a in axes])


def parse(node: onnx.NodeProto, ranks: list[int]) -> Equation | None:
    """The equation of an Einsum node; None where a letter is repeated within one tensor.

    Args:
        node: the node.
        ranks: ranks of its inputs; an ellipsis stands for the axes that have no letter.
    """
    text = re.sub(r"\s", "", attributes(node)["equation"].decode())
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    spare = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    dots = max((n for n, t in zip(spare, terms, strict=True) if "..." in t), default=0)
    if not arrow:
        letters = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = ("..." if dots else "") + "".join(letters)
    inputs = [_letters(t, dots - n, dots) for t, n in zip(terms, spare, strict=True)]
    out = _letters(right, 0, dots)
    if any(len(set(x)) < len(x) for x in (*inputs, out)):
        return None
    order = {c: i for i, c in enumerate(dict.fromkeys([*out, *(c for x in inputs for c in x)]))}
    return Equation(
        tuple(tuple(order[c] for c in x) for x in inputs),
        tuple(order[c] for c in out),
        len(order),
    )


def _letters(term: str, first: int, dots: int) -> list[str]:
    """Letters of a term; the axes of its ellipsis are called by number, aligned at the end."""
    head, ellipsis, tail = term.partition("...")
    middle = [str(i) for i in range(first, dots)] if ellipsis else []
    return [*head, *middle, *tail]
