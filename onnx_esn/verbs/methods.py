"""The methods of quantizing, and which options go with them."""

from __future__ import annotations

from onnx_esn.errors import OptionError
from onnx_esn.passes.learning.options import EPOCHS, LearnOptions
from onnx_esn.verbs.opening import Progress

METHODS = ("compensated", "nearest", "aciq", "qil")
ON_IMAGES = ("compensated", "qil")  # methods that need images


def learning(
    method: str,
    epochs: int | None,
    start_bits: int | None,
    seed: int,
    threads: int | None,
    progress: Progress | None,
) -> LearnOptions | None:
    """How to learn; None where the method does not.

    Raises:
        OptionError: options of learning for a method that learns nothing, or senseless ones.
    """
    if method != "qil":
        for name, value in (("epochs", epochs), ("start-bits", start_bits)):
            if value is not None:
                raise OptionError(f"{name} is for what learns: method qil")
        return None
    return LearnOptions(
        epochs=EPOCHS if epochs is None else epochs,
        start_bits=start_bits,
        seed=seed,
        threads=threads,
        progress=progress,
    )


def check_method(method: str, bits: int | None, target_cost: object, policy: object = None) -> None:
    """Raise `OptionError` where a method is unknown, or is not told how to quantize."""
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise OptionError(f"method {method!r} is not known; there are: {known}")
    if bits is None and target_cost is None and policy is None:
        raise OptionError("say how to quantize: bits or target_cost")
    if method not in ON_IMAGES and bits is not None and target_cost is not None:
        raise OptionError("say how to quantize: one of bits or target_cost")
