"""Store what `quantize` made."""

from __future__ import annotations

from dataclasses import replace

from onnx_esn.passes.base import PassResult
from onnx_esn.passes.setting import Setting
from onnx_esn.passes.storing import Storing, with_ranges


def stored(storing: Storing, setting: Setting, result: PassResult) -> PassResult:
    """The result in the wanted format, with the figures and the ranges of that."""
    if storing.nothing:
        return result
    done = storing.step(setting, result.plan)(result.model)
    skipped = tuple(dict.fromkeys((*result.skipped, *done.skipped)))
    details = {**result.details, **done.details}
    return replace(
        result,
        model=done.model,
        modified=True,
        skipped=skipped,
        details=details,
        plan=with_ranges(result.plan, done.plan),
    )
