"""Compressions that workers find by name, some of which take their worker down with them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from onnx_esn.pipeline import compress


@dataclass(frozen=True)
class KilledAt:
    """`compress`, but where there is no file yet for a point it makes one and dies.

    Attributes:
        folder: of the files.
        costs: target costs at which that happens.
        always: die each time.
    """

    folder: Path
    costs: tuple[float, ...]
    always: bool = False

    def __call__(self, model, images, *, target_cost, **options):
        mark = self.folder / f"{target_cost:g}.died"
        if target_cost in self.costs and (self.always or not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return compress(model, images, target_cost=target_cost, **options)


def slow_compress(model, images, **options):
    """`compress`, so slow that somebody can get in between."""
    time.sleep(0.5)
    return compress(model, images, **options)


def add(held, item):
    """Something small to work on."""
    return held["offset"] + item


def die(held, item):
    """Die of one item."""
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail(held, item):
    """What is not an error of ours."""
    raise ZeroDivisionError(f"item {item}")
