"""What every pass is: model in, new model and a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx

from onnx_esn.plans import Plan


@dataclass(frozen=True)
class Skipped:
    """Something a pass left alone.

    Attributes:
        node: name of the node, layer or tensor.
        reason: why, in words a user can act on.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class PassResult:
    """What a pass returns.

    Attributes:
        model: the new model; the input model is untouched.
        modified: whether it differs from the input model.
        skipped: what was left alone and why; never silent.
        plan: the decision as data, where the pass takes one.
        details: figures for tables and JSON, by name.
    """

    model: onnx.ModelProto
    modified: bool
    skipped: tuple[Skipped, ...] = ()
    plan: Plan | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Pass(Protocol):
    """A transformation of a model. Options are frozen dataclass fields of the pass."""

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the transformed model; raise an `OnnxEsnError`, never half a result."""
        ...


@dataclass(frozen=True)
class Sequential:
    """A sequence of passes is a pass.

    Attributes:
        passes: run in order, each on the previous one's model.
    """

    passes: Sequence[Pass]

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Run all passes; `skipped` is joined, `plan` is the last one that was made."""
        modified = False
        skipped: list[Skipped] = []
        plan: Plan | None = None
        details: dict[str, Any] = {}
        for step in self.passes:
            result = step(model)
            model = result.model
            modified |= result.modified
            skipped += result.skipped
            plan = result.plan or plan
            details.update(result.details)
        return PassResult(model, modified, tuple(skipped), plan, details)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to work on."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
