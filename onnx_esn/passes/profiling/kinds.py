"""A distinct layer: the models of it that are timed, and what comes of the times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.latency_fit import LatencyFit, fit_latency
from onnx_esn.passes.profiling.contexts import Context, corrected
from onnx_esn.passes.profiling.grid import width_grid
from onnx_esn.passes.profiling.layer_models import LoneLayer
from onnx_esn.passes.profiling.timing import LayerTime, Timer, WholeTime, quieter

Pair = tuple[int, int]

# How often widths count that the layer has in one of the whole models: pruned models are like them,
# while the grid's corners (all filters, next to no channels) are there to tell n_in from n_out.
_COUNT = 4.0
# Of the models that are in memory together.
_MOST_WEIGHTS = 1 << 26


@dataclass(frozen=True)
class LayerProfile:
    """What was found of a distinct layer.

    Attributes:
        names: the layers of this kind.
        op: operator, with what is fused into it, such as "Conv+Relu".
        widths: channels it reads and filters it has.
        kernel: kernel size; () for Gemm and MatMul.
        points: widths that were timed.
        seconds: at full width, alone.
        spread: median over widths of how far the median run is above the fast ones, relative.
        in_model: its time inside the whole model over that alone; 1 where its kernel is not found.
        kernels: what tells its kernel from others', by widths.
        fit: of the corrected timings.
    """

    names: tuple[str, ...]
    op: str
    widths: Pair
    kernel: tuple[int, ...]
    points: int
    seconds: float
    spread: float
    in_model: float
    kernels: Mapping[Pair, str]
    fit: LatencyFit


@dataclass
class Kind:
    """Layers that take the same time.

    Attributes:
        alike: the layers.
        models: what is timed, by (n_in, n_out): the layer of which it is a model.
        places: for each whole model, the widths that each of the layers has in it.
        times: the quietest so far, by widths.
    """

    alike: Sequence[LoneLayer]
    models: Mapping[Pair, LoneLayer]
    places: Sequence[Sequence[Pair]]
    times: dict[Pair, LayerTime] = field(default_factory=dict)

    @property
    def layer(self) -> Layer:
        """One of them."""
        return self.alike[0].layer

    def time(self, timer: Timer) -> None:
        """Time all models, those that fit into memory together against each other."""
        for pairs in self._batches():
            models = [self.models[pair].model(*pair) for pair in pairs]
            for pair, t in zip(pairs, timer.layers(models), strict=True):
                self.times[pair] = quieter(self.times[pair], t) if pair in self.times else t

    def _batches(self) -> Iterator[list[Pair]]:
        batch: list[Pair] = []
        size = 0.0
        full = self.layer.parameters / (self.layer.channels_in * self.layer.filters)
        for pair in self.models:
            weights = full * pair[0] * pair[1]
            if batch and size + weights > _MOST_WEIGHTS:
                yield batch
                batch, size = [], 0.0
            batch.append(pair)
            size += weights
        yield batch

    def profile(self, wholes: Sequence[WholeTime]) -> LayerProfile:
        """Fit the timings, corrected by those of the whole models."""
        layer = self.layer
        times = self.times
        ratios = defaultdict(list)
        for whole, widths in zip(wholes, self.places, strict=True):
            for pair in widths:
                inside = whole.kernels.get(times[pair].kernel)
                if inside is not None:
                    ratio = whole.share * inside / times[pair].seconds
                    ratios[pair[0] * pair[1]].append(ratio)
        known = {size: sum(r) / len(r) for size, r in ratios.items()}
        seconds = corrected(list(times), [t.seconds for t in times.values()], known)
        full = layer.channels_in, layer.filters
        n_in, n_out = zip(*times, strict=True)
        stands = {pair for widths in self.places for pair in widths}
        counts = [_COUNT if pair in stands else 1.0 for pair in times]
        return LayerProfile(
            names=tuple(a.layer.name for a in self.alike),
            op="+".join((layer.op, *(n.op_type for n in self.alike[0].tail))),
            widths=full,
            kernel=layer.kernel,
            points=len(times),
            seconds=times[full].seconds,
            spread=float(np.median([t.spread for t in times.values()])),
            in_model=known.get(full[0] * full[1], 1.0),
            kernels={pair: t.kernel for pair, t in times.items()},
            fit=fit_latency(n_in, n_out, seconds, counts=counts, one_width=layer.depthwise),
        )


def find_kinds(contexts: Sequence[Context], points: int, round_to: int, seed: int) -> list[Kind]:
    """The distinct layers of the first of the whole models, with the models that are to be timed.

    Args:
        contexts: the whole models.
        points: widths of each on its grid; those that it has in the whole models come besides.
        round_to: what the widths are multiples of.
        seed: of the grid.
    """
    alike: dict[object, list[LoneLayer]] = {}
    for x in contexts[0].layers.values():
        alike.setdefault(x.key, []).append(x)
    return [_kind(group, contexts, points, round_to, seed) for group in alike.values()]


def _kind(
    alike: list[LoneLayer], contexts: Sequence[Context], points: int, round_to: int, seed: int
) -> Kind:
    x = alike[0]
    layer, tied = x.layer, x.layer.depthwise
    grid = width_grid(*x.widths(round_to), points, seed, tied=tied)
    if tied:  # filters for each channel
        grid = [(a, a * (layer.filters // layer.channels_in)) for a, _ in grid]
    models = dict.fromkeys(grid, x)
    places: list[list[Pair]] = []
    for around in contexts:
        places.append([])
        for name in (a.layer.name for a in alike):
            own = around.layers.get(name)
            if own is not None and _same_sort(own.layer, layer):
                widths = own.layer.channels_in, own.layer.filters
                models.setdefault(widths, own)
                places[-1].append(widths)
    return Kind(alike, models, places)


def _same_sort(a: Layer, b: Layer) -> bool:
    """Whether one formula holds for both: a pruned layer may lose groups, or channels of each."""
    return a.depthwise == b.depthwise and (a.depthwise or a.groups == b.groups)
