"""Which layers a user means: patterns on the names of nodes and weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from onnx_esn.errors import OptionError
from onnx_esn.graph.layers import Layer

NOT_CHOSEN = "no 'only' pattern matches it"


def match_layers(layers: Sequence[Layer], patterns: Iterable[str], option: str) -> dict[str, str]:
    """Return, by name, the layers that match a pattern, and the last pattern that each matches.

    A pattern speaks of the layer's name, of its weight as the node reads it, or of the initializer
    behind that; * stands for any characters, ? for one, and all others for themselves.

    Args:
        layers: the layers of a model.
        patterns: the patterns.
        option: where they come from, for the message.

    Raises:
        OptionError: a pattern matches nothing; the message lists close names.
    """
    matched: dict[str, str] = {}
    for pattern in patterns:
        glob = pattern.replace("[", "[[]")
        hits = [x for x in layers if any(fnmatchcase(name, glob) for name in _names(x))]
        if not hits:
            names = [name for x in layers for name in dict.fromkeys(_names(x))]
            close = difflib.get_close_matches(pattern.strip("*"), names, 3, 0.3)
            hint = f"; close names: {', '.join(close)}" if close else ""
            raise OptionError(f"{option} pattern {pattern!r} matches no layer{hint}")
        matched.update(dict.fromkeys((x.name for x in hits), pattern))
    return matched


def left_out(
    layers: Sequence[Layer], only: Iterable[str], exclude: Iterable[str]
) -> dict[str, str]:
    """Return the layers to leave alone, by name, and why.

    Args:
        layers: the layers of a model.
        only: if any, what matches none of them is left out …
        exclude: … and so is what matches one of these.

    Raises:
        OptionError: a pattern matches nothing.
    """
    only = tuple(only)
    reasons: dict[str, str] = {}
    if only:
        chosen = match_layers(layers, only, "only")
        reasons = {x.name: NOT_CHOSEN for x in layers if x.name not in chosen}
    excluded = match_layers(layers, exclude, "exclude")
    return reasons | {name: f"excluded by {pattern!r}" for name, pattern in excluded.items()}


def _names(layer: Layer) -> tuple[str, ...]:
    return layer.name, layer.weight, layer.source
