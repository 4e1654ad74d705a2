"""How to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_esn.errors import OptionError
from onnx_esn.numerics.midrise import MAX_BITS

EPOCHS = 20


@dataclass(frozen=True)
class LearnOptions:
    """How to learn.

    Attributes:
        epochs: passes over the images, end to end.
        block_epochs: passes over the images for each block before that. What comes closer in the
            blocks was often further off at the outputs, so there are none unless asked for.
        start_bits: quantized filters begin with so many bits and lose one at a time, each time
            learned for `epochs`, down to their own; None: they begin with their own.
        batch_size: images of a step.
        rate: size of the first steps, as a share of each parameter's own scale; None: what suits
            the kind of weights.
        seed: draws the order of the images and their variations.
        vary: whether images are varied (`variations`).
        held_out: share of the images that judge: what is kept has to agree better on them.
        threads: threads for one operator.
        progress: called with ("learn", steps done, steps).
    """

    epochs: int = EPOCHS
    block_epochs: int = 0
    start_bits: int | None = None
    batch_size: int = 32
    rate: float | None = None
    seed: int = 0
    vary: bool = True
    held_out: float = 0.2
    threads: int | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"{self.epochs} epochs: give at least 1")
        if self.block_epochs < 0:
            raise OptionError(f"{self.block_epochs} epochs for a block: give at least 0")
        if self.start_bits is not None and not 2 <= self.start_bits <= MAX_BITS:
            raise OptionError(f"to start with {self.start_bits} bits: give 2 to {MAX_BITS}")
        if self.rate is not None and self.rate <= 0:
            raise OptionError(f"rate {self.rate:g} must be above 0")
