"""What `prune --selection qcqp` stays below: MACs, weights, activations, time; any of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from onnx_esn.budgets import Target, parse_target
from onnx_esn.errors import OptionError
from onnx_esn.plans.latency_model import LatencyModel

Asked = str | float | Target
NAMES = ("macs", "params", "memory", "latency")
UNITS = {
    "macs": "MACs",
    "params": "weights",
    "memory": "activation elements",
    "latency": "ms (modelled)",
}
_MILLISECONDS = re.compile(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(ms)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Targets:
    """The targets; None: none.

    Attributes:
        macs: multiply-accumulates of one sample.
        params: weights of layers, biases left out, as `inspect` counts them.
        memory: elements of one sample that the layers with weights put out, all added up.
        latency: milliseconds by `model`, or a percentage of what it says of the whole.
        model: the latency model, or its file.
    """

    macs: Asked | None = None
    params: Asked | None = None
    memory: Asked | None = None
    latency: Asked | None = None
    model: LatencyModel | str | Path | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse a target of time without a model of it, and what is no target."""
        if (self.latency is None) != (self.model is None):
            raise OptionError(
                "target_latency and latency_model go together: 'onnx-esn profile MODEL -o "
                "latency.json' writes the model"
            )
        self.parsed()

    @property
    def given(self) -> list[str]:
        """Names of the targets that are given."""
        return [name for name in NAMES if getattr(self, name) is not None]

    def parsed(self) -> dict[str, Target]:
        """The targets that are given, by name; of latency in ms; raises `OptionError`."""
        asked = {name: getattr(self, name) for name in NAMES}
        found = {n: parse_target(v) for n, v in asked.items() if v is not None and n != "latency"}
        if self.latency is not None:
            found["latency"] = _time(self.latency)
        return found


def _time(asked: Asked) -> Target:
    """A percentage, or milliseconds."""
    if not isinstance(asked, str) or asked.strip().endswith("%"):
        return parse_target(asked)
    match = _MILLISECONDS.fullmatch(asked)
    try:
        return Target(float(match[1] if match else ""))
    except ValueError:
        raise OptionError(f"{asked!r} is not a time: write 3.5ms, 3.5 or a percentage") from None
