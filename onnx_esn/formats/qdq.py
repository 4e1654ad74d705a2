"""Format `qdq`: the weights as integers behind DequantizeLinear, with a scale per filter.

Every weight takes the form with the fewest bytes (`qdq_forms`); all of them give the `fake`
weights to the last bit. Only stored weights change: the nodes that read them, their names and
their metadata stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_esn.errors import OperationError, OptionError
from onnx_esn.formats.bodies import inner_layers
from onnx_esn.formats.integer_weights import MOST_ULPS
from onnx_esn.formats.options import FormatOptions
from onnx_esn.formats.qdq_forms import scalar_tensors, smallest_form
from onnx_esn.formats.qdq_places import Candidate, find_candidates
from onnx_esn.formats.qdq_rewriting import rewritten
from onnx_esn.formats.qdq_types import Form, Scalars
from onnx_esn.formats.storage import tidy
from onnx_esn.formats.written import LayerFormat, Written
from onnx_esn.graph.constants import operator_sets
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.number_formats import EPSILON

LEAST_OPSET = 10  # the first with DequantizeLinear,
PER_AXIS_OPSET = 13  # with a scale per filter,
FOUR_BITS_OPSET = 21  # and with int4 (and int16)
# What a higher operator set must save of the weights' bytes to be worth it.
_WORTH = 0.05


@dataclass(frozen=True)
class _Decision:
    """The form of each candidate at an operator set; None: it stays as it is."""

    opset: int
    forms: tuple[Form | None, ...]
    bytes: int


def write(model: onnx.ModelProto, options: FormatOptions | None = None) -> Written:
    """Return a copy of a model in which the weights that lie on a grid are stored as integers.

    Args:
        model: in standard operators; its weights lie on grids, as `quantize` leaves them.
        options: whether the operator set may be raised, and how far.

    Raises:
        OptionError: the operator set must stay and has no DequantizeLinear, or the one asked for is
            below the model's own or cannot be reached.
    """
    options = options or FormatOptions()
    names = Names(model.graph)
    for node in model.graph.node:
        names.reserve(node)
    candidates = find_candidates(model, names)
    kinds = sorted({c.place.type for c in candidates if c.place is not None})
    scalars = {kind: Scalars(names.fresh("one"), names.fresh("half")) for kind in kinds}
    notes: list[str] = []
    for decision in _decisions(candidates, scalars, operator_sets(model).get("", 1), options):
        chosen = {
            c.place.tensor: form
            for c, form in zip(candidates, decision.forms, strict=True)
            if c.place is not None and form is not None
        }
        shared = [t for k in kinds for t in scalar_tensors(scalars[k], k)]
        try:
            result, how = rewritten(model, chosen, shared, decision.opset)
        except OperationError as error:
            if options.opset is not None:
                raise OptionError(f"{error}; leave --opset out") from error
            notes.append(f"{error}; it stays what it is")
            continue
        tidy(result)
        layers = _layers(candidates, decision.forms)
        return Written(result, layers, (*notes, *how, *_moved(candidates), *inner_layers(model)))
    raise OptionError(f"format qdq cannot be written: {'; '.join(notes)}")


def _decisions(
    candidates: Sequence[Candidate],
    scalars: Mapping[int, Scalars],
    opset: int,
    options: FormatOptions,
) -> list[_Decision]:
    """What to do, the best first; the others are for where the operator set cannot be raised."""

    def at(version: int) -> _Decision:
        forms, size = [], 0
        for c in candidates:
            form = None
            if c.place is not None:
                form = smallest_form(c.place, version, scalars[c.place.type])
            forms.append(form)
            size += c.bytes if form is None else form.weight_bytes
        return _Decision(version, tuple(forms), size)

    wanted = options.opset
    if wanted is not None and (options.keep_opset or wanted < opset):
        why = "--keep-opset says otherwise" if options.keep_opset else "it is never lowered"
        raise OptionError(f"the model has operator set {opset}, not {wanted}, and {why}")
    if all(c.place is None for c in candidates):
        return [at(wanted or opset)]
    if wanted is not None:
        return [at(max(wanted, LEAST_OPSET))]
    if options.keep_opset and opset < LEAST_OPSET:
        raise OptionError(
            f"format qdq needs operator set {LEAST_OPSET} and the model has {opset}: "
            "leave --keep-opset out, or take format fake"
        )
    low = at(opset if opset >= LEAST_OPSET else PER_AXIS_OPSET)
    if options.keep_opset or low.opset >= FOUR_BITS_OPSET:
        return [low]
    high = at(FOUR_BITS_OPSET)
    needed = any(form is not None and form.container.opset > low.opset for form in high.forms)
    return [high, low] if needed and high.bytes < (1 - _WORTH) * low.bytes else [low]


def _layers(
    candidates: Sequence[Candidate], forms: Sequence[Form | None]
) -> tuple[LayerFormat, ...]:
    found: list[tuple[int, LayerFormat]] = []
    for candidate, form in zip(candidates, forms, strict=True):
        first = candidate.layers[0]
        for layer in candidate.layers:
            shared = layer is not first
            reason = candidate.reason or (f"shares the weight of {first.name}" if shared else "")
            if form is None:
                size, type_name = candidate.bytes, candidate.type_name
                name = "float" if candidate.type in EPSILON else "integer"
            else:
                size, type_name, name = form.weight_bytes, form.container.name, form.name
            entry = LayerFormat(layer.name, name, type_name, 0 if shared else size, reason)
            found.append((layer.index, entry))
    return tuple(entry for _, entry in sorted(found, key=lambda pair: pair[0]))


def _moved(candidates: Sequence[Candidate]) -> list[str]:
    moved = sum(c.moved for c in candidates)
    if not moved:
        return []
    filters = "1 filter has" if moved == 1 else f"{moved} filters have"
    return [
        f"{filters} weights that no step gives exactly: they move by at most "
        f"{MOST_ULPS:g} unit in the last place"
    ]
