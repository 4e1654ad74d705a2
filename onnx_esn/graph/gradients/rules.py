"""All gradients there are, by operator."""

from __future__ import annotations

from onnx_esn.graph.gradients import (
    rules_elementwise,
    rules_layers,
    rules_movement,
    rules_quantizing,
    rules_reducing,
)
from onnx_esn.graph.gradients.site import Rule

RULES: dict[str, Rule] = {
    **rules_elementwise.RULES,
    **rules_layers.RULES,
    **rules_movement.RULES,
    **rules_quantizing.RULES,
    **rules_reducing.RULES,
}
