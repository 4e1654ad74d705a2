"""Where a NaN or an infinity comes from: the first node that makes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from .exposure import expose
from .session import Session


def first_not_finite(
    model: onnx.ModelProto | str | Path, feeds: Mapping[str, npt.NDArray[Any]], nan: bool
) -> str | None:
    """The first node of the main graph whose output holds one, with its operator.

    Args:
        model: as it was run.
        feeds: on which it makes one.
        nan: look for a NaN; an infinity may be there on purpose, as in a mask.

    Returns:
        Such as ``Conv 'stage2'``; None where it cannot be told.
    """
    try:
        if not isinstance(model, onnx.ModelProto):
            model = onnx.load(model)
        names = [name for node in model.graph.node for name in node.output if name]
        found = Session(expose(model, names), optimize=False).run(feeds)
    except Exception:  # it only adds to an error that is reported anyway
        return None
    made = [(node, name) for node in model.graph.node for name in node.output]
    floats = [
        (node, name, found[name])
        for node, name in made
        if isinstance(found.get(name), np.ndarray) and found[name].dtype.kind == "f"
    ]
    # Fused operators may make a NaN where these, one by one, make an infinity.
    for bad in (np.isnan, np.isinf) if nan else (np.isinf, np.isnan):
        for node, name, value in floats:
            if bad(value).any():
                return f"{node.op_type} {node.name or name!r}"
    return None
