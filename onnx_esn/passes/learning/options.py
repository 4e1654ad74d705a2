"""How to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx_esn.errors import OptionError

EPOCHS = 20


@dataclass(frozen=True)
class LearnOptions:
    """How to learn.

    Attributes:
        epochs: passes over the images, for each block.
        last_epochs: passes end to end after that.
        batch_size: images of a step.
        rate: size of the first steps, as a share of each parameter's own scale.
        seed: draws the order of the images and their variations.
        vary: whether images are varied (`variations`).
        held_out: share of the images that judge: what is kept has to agree better on them.
        threads: threads for one operator.
        progress: called with ("learn", steps done, steps).
    """

    epochs: int = EPOCHS
    last_epochs: int = 4
    batch_size: int = 32
    rate: float = 0.002
    seed: int = 0
    vary: bool = True
    held_out: float = 0.2
    threads: int | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"{self.epochs} epochs: give at least 1")
        if self.last_epochs < 0:
            raise OptionError(f"{self.last_epochs} last epochs: give at least 0")
        if self.rate <= 0:
            raise OptionError(f"rate {self.rate:g} must be above 0")
