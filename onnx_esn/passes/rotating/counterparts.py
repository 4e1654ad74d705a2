"""The streams of a model in another one: the one that it was pruned from, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.rewrite.rotated import in_other_basis
from onnx_esn.passes.correcting.norm_pairing import kept_channels, kept_positions
from onnx_esn.passes.rotating.rewriting import Basis, in_new_bases
from onnx_esn.passes.rotating.streams import Stream, find_streams

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counterpart:
    """A stream of another model, between layers of the same names.

    Attributes:
        stream: the stream there.
        kept: positions (c,) among its channels of those that the model has left.
    """

    stream: Stream
    kept: Indices

    def basis(self, basis: Basis) -> Basis:
        """The same change of the channels in `kept`; each of the others stays what it is."""
        M, inverse = np.eye(self.stream.width), np.eye(self.stream.width)
        M[np.ix_(self.kept, self.kept)] = basis.M
        inverse[np.ix_(self.kept, self.kept)] = basis.inverse
        return Basis(M, inverse)


class Beside:
    """Another model whose layers make the same channels, and perhaps more.

    Args:
        model: the model that is rotated.
        other: the other one, in standard form.
        shapes: sizes of dynamic axes, by input.

    Raises:
        ModelError: what a model records of its pruning is damaged.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        other: onnx.ModelProto,
        shapes: Mapping[str, Sequence[int]] | None,
    ) -> None:
        self.other, self.constants = other, Constants(other)
        found = find_streams(other, self.constants, shapes=shapes)
        self._by_ends = {_ends(stream): stream for stream in found}
        self._records = kept_channels(model), kept_channels(other)
        self._turned = in_other_basis(model, other)

    def counterpart(self, stream: Stream) -> Counterpart | None:
        """Of a stream of the model; None where the other model has none."""
        twin = self._by_ends.get(_ends(stream))
        if twin is None or any(maker.layer.name in self._turned for maker in stream.makers):
            return None
        theirs = {maker.layer.name: maker.layer for maker in twin.makers}
        mine, before = self._records
        found = [
            kept_positions(layer, theirs[layer.name], mine.get(layer.name), before.get(layer.name))
            for layer in (maker.layer for maker in stream.makers)
        ]
        first = found[0]
        if first is None or any(x is None or not np.array_equal(x, first) for x in found):
            return None
        return Counterpart(twin, first)

    def rotated(self, twins: Sequence[Counterpart], bases: Sequence[Basis]) -> onnx.ModelProto:
        """The other model with these streams in these bases of the model's."""
        wide = [twin.basis(basis) for twin, basis in zip(twins, bases, strict=True)]
        return in_new_bases(self.other, self.constants, [x.stream for x in twins], wide)


def _ends(stream: Stream) -> tuple[frozenset[str], frozenset[str]]:
    makers = frozenset(maker.layer.name for maker in stream.makers)
    return makers, frozenset(layer.name for layer in stream.readers)
