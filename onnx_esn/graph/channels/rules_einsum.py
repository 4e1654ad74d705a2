"""Label rule of Einsum: letters are axes, so its rule is that of a contraction written out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Product, Propagation
from onnx_esn.graph.einsum import Equation, parse
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.node_names import describe


def einsum(p: Propagation, node: onnx.NodeProto) -> None:
    """Einsum of one tensor (a transposition or sum), or of two: with a weight, or activations."""
    if all(p.get(name) is None and name not in p.constants for name in node.input):
        return
    equation = parse(node, [len(p.shape(name)) for name in node.input])
    if equation is None or len(node.input) > 2:
        raise MovementError("its equation repeats a letter, or has more than two factors")
    rule = _Einsum(p, node, equation)
    rule.run()


@dataclass
class _Einsum:
    p: Propagation
    node: onnx.NodeProto
    equation: Equation

    def run(self) -> None:
        """Consume what is contracted, pass what is kept, issue what a weight makes."""
        p, node, eq = self.p, self.node, self.equation
        weights = [k for k, name in enumerate(node.input) if name in p.constants]
        if len(weights) == len(node.input):
            raise MovementError("both of its factors are stored")
        found = [p.get(name) for name in node.input]
        spread = [None if x is None else eq.spread(x, k) for k, x in enumerate(found)]
        heads = self._heads(spread)
        if heads is not None:
            p.put(node.output[0], eq.gathered(heads))
            return
        inner = [self._inner(x) for x in spread]
        self._contract(inner, weights)
        outer = [
            x if x is not None and i is None else None for x, i in zip(spread, inner, strict=True)
        ]
        passing = self._passing(outer, weights)
        if passing is not None:
            p.put(node.output[0], eq.gathered(passing))
        elif weights:
            made = self._filters(weights[0])
            if made is not None:
                p.put(node.output[0], eq.gathered(made))

    @property
    def _reason(self) -> str:
        return f"read by {describe(self.node)}"

    def _inner(self, x: Labels | None) -> Labels | None:
        """The labels that are contracted, tied along everything else; None where none are."""
        eq = self.equation
        if x is None or all(x.shape[a] == 1 for a in eq.contracted):
            return None
        return self.p.space.tie_along(x, eq.kept, self._reason)

    def _contract(self, inner: list[Labels | None], weights: list[int]) -> None:
        p, eq = self.p, self.equation
        known = [x for x in inner if x is not None]
        if not known:
            return
        if len(self.node.input) == 1:
            raise MovementError("it sums over channels")
        joint = known[0]
        for x in known[1:]:
            p.space.tie(joint, x, self._reason)
            joint = np.broadcast_arrays(joint, x)[0]
        reason = f"multiplied in {describe(self.node)} with a tensor that carries no channels"
        for k, own in enumerate(inner):
            if any(joint.shape[a] > 1 and a not in eq.axes[k] for a in eq.contracted):
                raise MovementError("it sums one factor over channels before it multiplies")
            if k in weights:
                p.claim(self.node, k, eq.part(joint, k), "input")
            elif own is None:
                p.space.lock(joint, reason)
        if not weights:
            p.products.append(Product(p.index, 0, eq.part(joint, 0)))

    def _heads(self, spread: list[Labels | None]) -> Labels | None:
        """Two activations that both vary along a kept letter, and do not match in what is summed.

        Such a letter counts heads; whole heads go.
        """
        p, eq = self.p, self.equation
        if len(spread) != 2:
            return None
        if spread[0] is None or spread[1] is None:
            return None
        a, b = spread[0], spread[1]
        heads = [k for k in eq.kept if a.shape[k] > 1 and b.shape[k] > 1]
        if not heads or all(any(x.shape[k] > 1 for k in eq.contracted) for x in (a, b)):
            return None
        inside = [k for k in range(eq.rank) if k not in heads]
        a, b = (p.space.tie_along(x, inside, self._reason) for x in (a, b))
        p.space.tie(a, b, self._reason)
        return a

    def _passing(self, outer: list[Labels | None], weights: list[int]) -> Labels | None:
        """What one factor hands on; its axes in the other factor go with it."""
        p, eq, node = self.p, self.equation, self.node
        known = [k for k, x in enumerate(outer) if x is not None and x.size > 1]
        for k in known[1:]:
            p.space.lock(outer[k], f"both factors of {describe(node)} carry channels")
        if not known:
            return None
        first = known[0]
        x = outer[first]
        assert x is not None
        if len(node.input) == 1:
            return x
        other = 1 - first
        shared = [a for a in _axes(x) if a in eq.axes[other]]
        if len(shared) < len(_axes(x)):
            return p.space.tie_along(x, shared, self._reason)
        if other in weights:
            p.claim(node, other, eq.part(x, other), "param")
        else:
            p.space.lock(x, f"multiplied in {describe(node)} with other channels")
        return x

    def _filters(self, weight: int) -> Labels | None:
        """New labels on the letters that only the weight has."""
        p, eq = self.p, self.equation
        own = [a for a in eq.kept if all((a in eq.axes[k]) == (k == weight) for k in range(2))]
        if not own:
            return None
        shape = p.constants.shape(self.node.input[weight])
        full = [1] * eq.rank
        for a in own:
            full[a] = shape[eq.axes[weight].index(a)]
        made = p.space.issue(math.prod(full), p.index).reshape(full)
        p.claim(self.node, weight, eq.part(made, weight), "filter")
        if len(own) > 1:
            p.space.lock(made, f"filters of {describe(self.node)}, on several axes of its weight")
        return made


def _axes(x: Labels) -> list[int]:
    return [a for a, n in enumerate(x.shape) if n > 1]
