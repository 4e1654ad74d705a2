"""Cross-layer equalisation: the same outputs from weights that one step a filter suits better.

Channel c of a tensor is multiplied with a factor s_c, who makes it (a layer, a BatchNormalization)
is given s_c times its parameters, and who reads it 1/s_c of its weights. Between them may be
whatever gives s·y for s·x. Before quantization the outputs stay as they are, up to the rounding of
weights; rounding to b bits then hurts small input channels no more than large ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import OptionError, PlanError
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.node_names import describe
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.equalizing.factors import choose_factors
from onnx_esn.passes.equalizing.layer_rules import SCALING, SCALING_ALL
from onnx_esn.passes.equalizing.rewriting import rescaled
from onnx_esn.passes.equalizing.scalable import Scalable, find_scalable

Floats = npt.NDArray[np.float64]
ACROSS = ("homogeneous", "all")


@dataclass(frozen=True)
class Equalize:
    """Scale channels so that all input channels of a filter have weights of one size.

    `details`: `scaled_channels`, `locked_channels` (counts of sets of channels that share a
    factor), and `scales`: the factors, by the name of the node that makes the channels.

    Attributes:
        across: "homogeneous": factors pass what is homogeneous in each channel (Relu, pooling,
            sums, data movement). "all": Clip too; its bounds become one a channel (Relu → Min).
        scales: factors to apply instead of choosing any: the `scales` of an earlier run.
        input_shape: sizes of dynamic axes, by input.
    """

    across: str = "homogeneous"
    scales: Mapping[str, Sequence[float]] | None = None
    input_shape: Mapping[str, Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if self.across not in ACROSS:
            known = ", ".join(ACROSS)
            raise OptionError(f"across {self.across!r} is not known; there are: {known}")

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Equalize a model in standard form.

        `skipped` names layers whose inputs all have a fixed scale, with the reason.

        Raises:
            PlanError: `scales` does not fit the model.
        """
        rules = SCALING_ALL if self.across == "all" else SCALING
        s = find_scalable(model, rules, shapes=self.input_shape)
        given = self.scales
        factors = choose_factors(s) if given is None else _given(s, given)
        modified = bool((factors != 1).any())
        made = np.unique(s.classes.of[1:][factors[1:] != 1])
        details = {
            "scaled_channels": int(made.size),
            "locked_channels": int(np.count_nonzero(s.classes.locked)),
            "scales": _by_maker(s, factors),
        }
        result = rescaled(s, factors) if modified else model
        return PassResult(result, modified, tuple(_skipped(s)), None, details)


def _by_maker(s: Scalable, factors: Floats) -> dict[str, list[float]]:
    found = {s.names[node]: factors[a : a + n] for a, n, node in s.propagation.space.issued}
    return {name: t.tolist() for name, t in found.items() if (t != 1).any()}


def _given(s: Scalable, scales: Mapping[str, Sequence[float]]) -> Floats:
    """Factors by label; raises `PlanError` where they do not fit."""
    factors = np.ones(s.propagation.space.count + 1)
    issued = {s.names[node]: (first, n) for first, n, node in s.propagation.space.issued}
    for name, values in scales.items():
        if name not in issued:
            raise PlanError(f"the scales name {name!r}, which makes no channels in this model")
        first, n = issued[name]
        t = np.asarray(values, np.float64)
        if t.shape != (n,) or not (np.isfinite(t) & (t > 0)).all():
            raise PlanError(f"the scales of {name!r} must be {n} finite numbers above 0")
        factors[first : first + n] = t
    low, high = np.full(len(s.classes), np.inf), np.zeros(len(s.classes))
    np.minimum.at(low, s.classes.of[1:], factors[1:])
    np.maximum.at(high, s.classes.of[1:], factors[1:])
    wrong = (low != high) | (s.classes.locked & (high != 1))
    if wrong.any():
        label = int(np.flatnonzero(s.classes.of == wrong.argmax())[0])
        name = next(k for k, (a, n) in issued.items() if a <= label < a + n)
        reason = s.classes.reasons[int(wrong.argmax())] or "they differ from those they are tied to"
        raise PlanError(f"the scales of {name!r} do not fit this model: {reason}")
    return factors


def _skipped(s: Scalable) -> list[Skipped]:
    """Layers that mix channels of which none can be scaled."""
    found = []
    for index, layer in s.layers.items():
        if layer.channels_in // layer.groups < 2:
            continue
        claims = s.claims.get((index, layer.slot), ())
        read = [c.labels.reshape(-1) for c in claims if c.role == "input"]
        classes = np.unique(s.classes.of[np.concatenate(read)]) if read else np.empty(0, np.int64)
        classes = classes[classes >= 0]
        if classes.size and not s.classes.locked[classes].all():
            continue
        reason = s.classes.reasons[classes[0]] if classes.size else _origin(s, layer)
        found.append(Skipped(layer.name, f"the scale of its inputs is fixed: {reason}"))
    return found


def _origin(s: Scalable, layer: Layer) -> str:
    """Why what a layer reads carries no channels that could be scaled."""
    data = s.model.graph.node[layer.index].input[0 if layer.slot == 1 else 1]
    why = s.propagation.why_unlabelled(data)
    maker = s.propagation.producers.get(data)
    if why or maker is None:
        return why or f"{data!r} is an input of the model"
    return f"made by {describe(s.model.graph.node[maker])}"
