"""Who wins, layer by layer and for the model, in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from onnx_esn.numerics.pruning_or_quantizing import BITS

if TYPE_CHECKING:
    from onnx_esn.passes.analysis.channels import ChannelLoss

    from .findings import Findings

EQUAL = 0.5  # dB: closer than that, neither wins
_WORTH = 0.8  # of the loss: what both together have to come down to
CAVEAT = (
    "Pruning of single weights is granted a mask that costs nothing and lies anywhere. That is "
    "generous: a plain runtime gains nothing from such zeros."
)


class Margin(Protocol):
    """SNR of both at one compression."""

    @property
    def bits(self) -> int:
        """n."""

    @property
    def margin(self) -> float:
        """By how many dB quantization wins."""


def winner(margin: float) -> str:
    """``quantize``, ``prune`` or ``equal``."""
    if margin > EQUAL:
        return "quantize"
    return "prune" if margin < -EQUAL else "equal"


def layer_advice(found: Findings, name: str) -> str:
    """``quantize``, ``prune``, ``prune at 2, 3 bits`` or ``either``, by outputs where known."""
    return _advice(margins(found, name))


def margins(found: Findings, name: str) -> Sequence[Margin]:
    """What the advice for a tensor (by its first layer) rests on."""
    tensor = next(x for x in found.tensors if x.name == name)
    known = next((found.outputs[x] for x in tensor.layers if x in found.outputs), None)
    return tensor.snr if known is None else known.snr


def _advice(snr: Sequence[Margin]) -> str:
    by = {x.bits: winner(x.margin) for x in snr}
    prune = sorted(b for b, who in by.items() if who == "prune")
    if len(prune) == len(by):
        return "prune"
    if prune:
        return f"prune at {', '.join(map(str, prune))} bit{'s' if prune != [1] else ''}"
    return "quantize" if "quantize" in by.values() else "either"


@dataclass(frozen=True)
class Tally:
    """Who wins how often, at one compression.

    Attributes:
        by: ``weights``, ``outputs``, or ``blocks`` of inputs, where it is proven.
        bits: n.
        quantize, prune: how many tensors or layers each wins; the rest are equal, or open.
        median_margin: dB by which quantization wins; None for blocks.
    """

    by: str
    bits: int
    quantize: int
    prune: int
    median_margin: float | None


def tallies(found: Findings) -> list[Tally]:
    """By weights; with images by outputs, and by blocks."""
    kinds: dict[str, list[Sequence[Margin]]] = {
        "weights": [x.snr for x in found.tensors],
        "outputs": [x.snr for x in found.outputs.values()],
    }
    result = []
    for by, layers in kinds.items():
        for n, bits in enumerate(BITS if layers else ()):
            each = [x[n].margin for x in layers]
            who = [winner(m) for m in each]
            middle = statistics.median(each)
            result.append(Tally(by, bits, who.count("quantize"), who.count("prune"), middle))
    blocks = [x.blocks for x in found.outputs.values() if x.blocks]
    for n, bits in enumerate(BITS if blocks else ()):
        who = [x[n].winner for x in blocks]
        result.append(Tally("blocks", bits, who.count("quantize"), who.count("prune"), None))
    return result


def model_advice(found: Findings) -> list[str]:
    """What to do, in a sentence or two."""
    whole = found.model_channels
    if whole is None or not whole.losses:
        return [_verdict(found)]
    return [*_costs(whole.losses)]


def _costs(losses: Sequence[ChannelLoss]) -> Iterator[str]:
    """By the whole model at equal cost."""
    useful = [x for x in losses if x.best < _WORTH * x.quantized]
    prune = [x for x in losses if x.winner == "prune"]
    if not useful:
        least = min(x.bits for x in losses)
        yield (
            f"In MAC·bit: quantize, down to {_per_mac(least)} at least; removing filters as "
            "well adds little."
        )
        return
    most = max(useful, key=lambda x: x.bits)
    yield (
        f"In MAC·bit: quantize alone above {_per_mac(most.bits)}; from there down remove filters "
        f"too (`compress --target-cost`), {_mix(most)}."
    )
    if prune:
        at = ", ".join(_per_mac(x.bits) for x in prune)
        yield f"At {at} even removing filters alone, at 8 bits, loses less than fewer bits alone."


def _mix(loss: ChannelLoss) -> str:
    return (
        f"about {100 * loss.best_kept:.0f} % of the channels at {loss.best_bits:.1f} bits, for "
        f"{loss.best / loss.quantized:.2f} of the loss"
    )


def _per_mac(bits: int) -> str:
    return f"{bits} bit{'' if bits == 1 else 's'} per MAC"


def _verdict(found: Findings) -> str:
    """Where nothing is known of costs: by outputs, or else by weights alone."""
    layers: list[Sequence[Margin]] = [x.snr for x in found.outputs.values()]
    layers = layers or [x.snr for x in found.tensors]
    if not layers:
        return "There is nothing to compare."
    what = "layers" if found.outputs else "tensors"
    prune = [b for n, b in enumerate(BITS) if _most([x[n].margin for x in layers])]
    if prune:
        at = ", ".join(map(str, prune))
        return f"Most {what} would rather be pruned at {at} bits; elsewhere quantize."
    if found.images is None:
        return "Quantize. With --images, outputs and removing whole filters are compared too."
    return "Quantize. Removing whole filters was not compared: no layer's cost in bits is known."


def _most(values: Sequence[float]) -> bool:
    who = [winner(m) for m in values]
    return who.count("prune") > who.count("quantize")
