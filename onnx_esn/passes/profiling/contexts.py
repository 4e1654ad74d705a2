"""The whole model, as it is and pruned: what layers take with all the others around them.

Alone, a layer finds its input in the nearest cache, or finds that other layers' runs have emptied
it; inside a model it is one or the other by how large the model is. So whole models are timed too:
the model and two that are pruned evenly. Each kernel of theirs is recognised by its operator and
its shapes; the ratio of its time there to that of the layer alone is what the timings alone are
corrected by, interpolated over n_in·n_out (its logarithm) between the three.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.errors import OnnxEsnError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.readers import readers
from onnx_esn.graph.shapes import infer_facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.costs import view_layers
from onnx_esn.passes.profiling.layer_models import LoneLayer, lone_layer
from onnx_esn.passes.profiling.timing import Feeds, random_feeds
from onnx_esn.passes.pruning.prune import Prune

log = logging.getLogger(__name__)

# Shares of the filters that the pruned ones lose.
RATIOS = (0.35, 0.65)


@dataclass(frozen=True)
class Context:
    """A whole model and its layers.

    Attributes:
        model: in standard form.
        feeds: what to run it on.
        layers: those that can be timed alone, by name.
        skipped: the others.
    """

    model: onnx.ModelProto
    feeds: Feeds
    layers: Mapping[str, LoneLayer]
    skipped: tuple[Skipped, ...]

    @property
    def elements(self) -> int:
        """Numbers in the outputs of its layers."""
        return sum(math.prod(x.layer.output_shape or (0,)) for x in self.layers.values())


def contexts_of(
    model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]], round_to: int
) -> list[Context]:
    """The model, and where it can be pruned two that are; none of them is timed yet.

    Args:
        model: in standard form.
        sizes: shapes by input.
        round_to: widths of layers that lose filters are multiples of this.
    """
    found = [_context(model, sizes)]
    for ratio in RATIOS:
        step = Prune(
            ratio=ratio,
            criterion="l1-norm",
            round_to=round_to,
            absorb="none",
            input_shapes={name: tuple(shape) for name, shape in sizes.items()},
        )
        try:
            result = step(model)
        except OnnxEsnError as error:
            log.info("timed without pruned models: %s", error)
            break
        if result.modified:
            found.append(_context(standard_form(result.model), sizes))
    return found


def _context(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> Context:
    constants = Constants(model)
    shapes = {name: tuple(shape) for name, shape in sizes.items()}
    view = view_layers(model, infer_facts(model, shapes, constants), constants)
    users = readers(model)
    found = {layer.name: lone_layer(model, view, layer, users) for layer in view.layers}
    return Context(
        model,
        random_feeds(model, sizes),
        {name: x for name, x in found.items() if isinstance(x, LoneLayer)},
        tuple(Skipped(n, f"not timed: {x}") for n, x in found.items() if isinstance(x, str)),
    )


def corrected(
    widths: Sequence[tuple[int, int]], seconds: Sequence[float], known: Mapping[int, float]
) -> list[float]:
    """Timings alone, each times what the model around would make of it.

    Args:
        widths: (n_in, n_out) of each timing.
        seconds: the timings.
        known: by n_in·n_out, time in a model over time alone.
    """
    if not known:
        return list(seconds)
    sizes = sorted(known)
    logs = np.log(sizes)
    ratios = [known[s] for s in sizes]
    at = np.log([a * b for a, b in widths])
    return [float(t * r) for t, r in zip(seconds, np.interp(at, logs, ratios), strict=True)]
