"""What the descent sees of a layer's weights, whatever they are made of."""

from __future__ import annotations

from typing import Protocol

from onnx_esn.numerics.midrise import Floats


class Learned(Protocol):
    """The filters of a layer and their parameters."""

    @property
    def parameters(self) -> dict[str, Floats]:
        """What is learned, by name: arrays that are changed in place."""

    @property
    def scales(self) -> dict[str, Floats]:
        """By parameter, the size of a large step; broadcasts to it."""

    def values(self) -> Floats:
        """Filters (M, K)."""

    def gradients(self, G: Floats) -> dict[str, Floats]:
        """Of the parameters, from that of the filters (M, K)."""

    def settle(self) -> None:
        """Bring parameters back to where they mean something, after a step."""
