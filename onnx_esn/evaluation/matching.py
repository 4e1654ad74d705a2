"""Whether models can be compared: inputs, outputs, batch sizes, names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import onnx

from onnx_esn.calibration import Session, TensorSpec
from onnx_esn.calibration.tensor_spec import check_fixed_batches
from onnx_esn.errors import OptionError, first_few

from .turns import Runnable

log = logging.getLogger(__name__)


def check_inputs(
    own: Sequence[TensorSpec], reference: Sequence[TensorSpec], name: str, reference_name: str
) -> None:
    """Refuse a model that does not take what the reference takes.

    A single input may have another name; the batch size may be fixed in one and free in the
    other; floating-point types may differ in width.

    Raises:
        OptionError: naming both models and both signatures.
    """
    if len(own) == len(reference) and len(own) == 1:
        pairs = [(own[0], reference[0])]
    else:
        by_name = {spec.name: spec for spec in own}
        if set(by_name) != {spec.name for spec in reference}:
            raise _differ(own, reference, name, reference_name)
        pairs = [(by_name[spec.name], spec) for spec in reference]
    if not all(_compatible(a, b) for a, b in pairs):
        raise _differ(own, reference, name, reference_name)


def match_outputs(
    own: Sequence[TensorSpec], reference: Sequence[TensorSpec], name: str
) -> dict[str, str]:
    """For each output of the reference, the model's: by name, else by position.

    Outputs that are not tensors of numbers (sequences, strings) are left out, with a warning.

    Raises:
        OptionError: an output has no counterpart, or none is a tensor of numbers.
    """
    for spec in reference:
        if not _is_numeric(spec):
            log.warning("output '%s' is not a tensor of numbers and is not compared", spec.name)
    reference, own = ([spec for spec in x if _is_numeric(spec)] for x in (reference, own))
    if not reference:
        raise OptionError("the reference has no output that is a tensor of numbers")
    names = {spec.name for spec in own}
    if all(spec.name in names for spec in reference):
        return {spec.name: spec.name for spec in reference}
    if len(own) != len(reference):
        raise OptionError(
            f"{name} has the outputs {_listed(own)}, but the reference has {_listed(reference)}; "
            "models can be compared if they have the same outputs"
        )
    return {b.name: a.name for a, b in zip(own, reference, strict=True)}


def common_batch(sessions: Sequence[Session | Runnable], names: Sequence[str]) -> int | None:
    """The batch size that some models insist on, or None.

    Raises:
        ImageSetError: inputs of one insist on different ones.
        OptionError: models do.
    """
    fixed: dict[int, str] = {}
    for session, name in zip(sessions, names, strict=True):
        check_fixed_batches(session.inputs)
        for spec in session.inputs:
            if spec.fixed_batch is not None:
                fixed.setdefault(spec.fixed_batch, name)
    if len(fixed) > 1:
        listed = ", ".join(f"{size} in {name}" for size, name in fixed.items())
        raise OptionError(
            f"the models have different fixed batch sizes ({listed}) and cannot be run side by "
            "side; export them with a dynamic batch, or evaluate them one at a time"
        )
    return next(iter(fixed), None)


def unique_names(
    models: Sequence[onnx.ModelProto | str | os.PathLike[str]], given: Sequence[str | None]
) -> list[str]:
    """A name for each model: the one given, the file's, or the graph's.

    Files of one name get their folder in front; what is still alike gets a number.
    """
    paths = [None if isinstance(model, onnx.ModelProto) else Path(model) for model in models]
    plain = [path.name for path in paths if path is not None]
    names = []
    for model, path, name in zip(models, paths, given, strict=True):
        if name is None and path is not None:
            shared = plain.count(path.name) > 1 and path.parent.name
            name = f"{path.parent.name}/{path.name}" if shared else path.name
        elif name is None and isinstance(model, onnx.ModelProto):
            name = model.graph.name or "model"
        names.append(str(name))
    taken: dict[str, int] = {}
    for index, name in enumerate(names):
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            names[index] = f"{name} ({taken[name]})"
    return names


def _is_numeric(spec: TensorSpec) -> bool:
    return spec.dtype.kind in "fiub"


def _compatible(a: TensorSpec, b: TensorSpec) -> bool:
    if a.dtype != b.dtype and not (a.dtype.kind == b.dtype.kind == "f"):
        return False
    if not a.shape or not b.shape:
        return True
    if len(a.shape) != len(b.shape):
        return False
    pairs = zip(a.shape[1:], b.shape[1:], strict=True)
    return all(x == y or not isinstance(x, int) or not isinstance(y, int) for x, y in pairs)


def _differ(
    own: Sequence[TensorSpec], reference: Sequence[TensorSpec], name: str, reference_name: str
) -> OptionError:
    return OptionError(
        f"{name} takes {_listed(own)}, but {reference_name} takes {_listed(reference)}; "
        "models can be compared on the same images if they take the same inputs"
    )


def _listed(specs: Sequence[TensorSpec]) -> str:
    return first_few([f"'{s.name}' {s.dtype} {s.describe_shape()}" for s in specs]) or "nothing"
