"""What a format's writer may be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FormatOptions:
    """Options of a writer.

    Attributes:
        keep_opset: the operator set stays what it is; a format that cannot do without another one
            is refused.
        opset: operator set to raise the model to (25 has 2-bit integers); None: only as far as
            the format needs it.
    """

    keep_opset: bool = False
    opset: int | None = None
