"""How verbs run: on models from files, and so that no old annotation stays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import onnx

from onnx_esn.graph.model_source import plain_source
from onnx_esn.outside import any_outside, brought_inside
from onnx_esn.passes.annotation import strip_annotation
from onnx_esn.passes.base import Pass, PassResult
from onnx_esn.verbs.opening import Model, opened

Verb = TypeVar("Verb", bound=Callable[..., PassResult])


def from_file(verb: Verb) -> Verb:
    """A verb that leaves the large weights of a model given by its path in their file meanwhile.

    Its result holds them: who saves it with `onnx.save` need not know.
    """

    @functools.wraps(verb)
    def run(model: Model, *args: Any, **options: Any) -> PassResult:
        source = plain_source(model)
        if isinstance(source, onnx.ModelProto):
            return verb(source, *args, **options)
        result = verb(opened(source, outside=True, hand_on=True), *args, **options)
        if not any_outside(result.model):
            return result
        return replace(result, model=brought_inside(result.model))

    return run  # type: ignore[return-value]  # it takes what the verb takes


def changed(step: Pass, model: onnx.ModelProto) -> PassResult:
    """Run a pass that changes figures: an annotation of the input no longer holds."""
    result = step(model)
    if result.modified:
        strip_annotation(result.model)  # nobody else has it
    return result
