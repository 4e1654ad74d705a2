"""Sliding windows: where a kernel looks, and where what it saw goes back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx_esn.graph.gradients.site import NoGradientError
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.inputs import Shape


@dataclass(frozen=True)
class Windows:
    """How a kernel slides, for the spatial axes.

    Attributes:
        kernel, strides, dilations, before, after: sizes by spatial axis.
        size, out: spatial sizes of the input and of the output.
    """

    kernel: Shape
    strides: Shape
    dilations: Shape
    before: Shape
    after: Shape
    size: Shape
    out: Shape

    @property
    def rank(self) -> int:
        """Spatial axes."""
        return len(self.kernel)

    def pads(self) -> list[int]:
        """As ONNX writes them."""
        return [*self.before, *self.after]

    def seen(self, tape: Tape, x: str) -> str:
        """What a kernel of one position sees, (…, …, *out), of x (…, …, *size)."""
        reach = [s * (o - 1) + 1 for s, o in zip(self.strides, self.out, strict=True)]
        after = [r - n - b for r, n, b in zip(reach, self.size, self.before, strict=True)]
        x = tape.pad(x, [0, 0, *self.before], [0, 0, *after])
        if all(s == 1 for s in self.strides):
            return x
        axes = list(range(2, 2 + self.rank))
        return tape.slice(x, axes, [0] * self.rank, reach, self.strides)

    def output_padding(self) -> list[int]:
        """Rows that the last windows do not reach, which a transposed convolution adds."""
        found = []
        for i in range(self.rank):
            reach = self.strides[i] * (self.out[i] - 1) + self.dilations[i] * (self.kernel[i] - 1)
            found.append(self.size[i] + self.before[i] + self.after[i] - reach - 1)
        return found


def windows(attrs: dict[str, Any], kernel: Shape, size: Shape, out: Shape) -> Windows:
    """Read them from a node's attributes; raises `NoGradientError` where they are not fixed."""
    rank = len(kernel)
    strides = tuple(int(s) for s in attrs.get("strides", [1] * rank))
    dilations = tuple(int(d) for d in attrs.get("dilations", [1] * rank))
    auto = attrs.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("NOTSET", "VALID"):
        pads = [int(p) for p in attrs.get("pads", [0] * 2 * rank)] if auto == "NOTSET" else None
        pads = pads or [0] * 2 * rank
        before, after = tuple(pads[:rank]), tuple(pads[rank:])
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((o - 1) * s + (k - 1) * d + 1 - n, 0)
            for o, s, k, d, n in zip(out, strides, kernel, dilations, size, strict=True)
        ]
        less, more = tuple(p // 2 for p in total), tuple(p - p // 2 for p in total)
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    else:
        raise NoGradientError(f"auto_pad {auto} is not known")
    return Windows(kernel, strides, dilations, before, after, size, out)
