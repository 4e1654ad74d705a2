"""How much to prune of which layers: patterns and ratios, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader

RATIOS_SCHEMA = "onnx-esn/pruning-ratios/1"


@dataclass(frozen=True)
class PruningRatios:
    """A pruning ratio for each layer.

    Attributes:
        ratios: pattern (node name, weight or initializer; * and ?) → fraction of the prunable
            filters to remove, 0 ≤ ratio < 1. The last pattern that matches a layer holds for it.
        default: the ratio of layers that no pattern matches; None: not said here.

    Raises:
        PlanError: a ratio is none.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    default: float | None = None

    def __post_init__(self) -> None:
        """Check the ratios."""
        _check(self.ratios, self.default, Reader("ratios"))

    def to_json(self) -> str:
        """One JSON document, a line per pattern."""
        document: dict[str, Any] = {"schema": RATIOS_SCHEMA}
        if self.default is not None:
            document["default"] = self.default
        document["ratios"] = dict(self.ratios)
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read_ratios(document: Mapping[str, Any], read: Reader) -> PruningRatios:
    """Build the ratios from a parsed document; raises `PlanError`."""
    read.known(document, ("schema", "default", "ratios"))
    ratios, default = document.get("ratios", {}), document.get("default")
    if not isinstance(ratios, Mapping):
        raise PlanError(f"{read.where}: 'ratios' must be an object, pattern: ratio")
    _check(ratios, default, read)
    return PruningRatios(ratios, default)


def _check(ratios: Mapping[str, Any], default: Any, read: Reader) -> None:
    for pattern, ratio in ratios.items():
        read.ratio(ratio, f"the ratio of {pattern!r}")
    if default is not None:
        read.ratio(default, "'default'")
