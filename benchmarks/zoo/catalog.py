"""All nets of the zoo (this imports torch)."""

from __future__ import annotations

from benchmarks.zoo import own_nets, timm_nets, torchvision_nets
from benchmarks.zoo.nets import Net


def all_nets() -> dict[str, Net]:
    """Every net by name, in the order in which they are exported."""
    nets = [*own_nets.nets(), *torchvision_nets.nets(), *timm_nets.nets()]
    # Whole detectors last: the dynamo exporter needs long to find that it cannot have them.
    nets.sort(key=lambda net: net.image_list)
    return {net.name: net for net in nets}
