"""What onnxruntime's kernels take, each by itself: its own trace, read back.

The wall time of a run of one small layer is mostly that of entering and leaving onnxruntime, and
of bringing its input into the layout that a whole model keeps from layer to layer. The trace has
the kernels apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.temporary import new_folder

from .session import Session

# The trace counts whole microseconds, rounded down: on average this much is missing.
_ROUNDED_OFF = 0.5e-6
_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class Kernel:
    """One kernel in one run.

    Attributes:
        node: the node that it runs, as onnxruntime names it after its fusions.
        op: operator, such as Conv or ReorderInput.
        shapes: of its data, its weight and its output: what tells which layer of a model it is.
        seconds: how long it took.
    """

    node: str
    op: str
    shapes: str
    seconds: float


class KernelClock:
    """A session that notes what each kernel takes; close it, or use it in a `with`.

    Args:
        model: the model.
        threads: threads for one operator; None leaves the choice to onnxruntime.

    Raises:
        InferenceError: onnxruntime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, threads: int | None = 1) -> None:
        self._folder = new_folder()
        try:
            self._session = Session(model, threads=threads, trace=self._folder / "trace")
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """One run; raises `InferenceError`."""
        self._session.run(feeds)

    def runs(self) -> list[list[Kernel]]:
        """The kernels of each run since the start, in order; the clock stands still from now on."""
        return read_trace(self._session.end_trace())

    def close(self) -> None:
        """Remove the trace."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> KernelClock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_trace(path: Path) -> list[list[Kernel]]:
    """The kernels of each run in a trace of onnxruntime."""
    runs: list[list[Kernel]] = []
    kernels: list[Kernel] = []
    for event in json.loads(path.read_text(encoding="utf-8")):
        name = event.get("name", "")
        if name == "model_run":  # written when a run ends
            runs.append(kernels)
            kernels = []
        elif event.get("cat") == "Node" and name.endswith(_KERNEL):
            about, seconds = event["args"], event["dur"] / 1e6 + _ROUNDED_OFF
            inputs, outputs = about.get("input_type_shape", []), about.get("output_type_shape", [])
            shapes = json.dumps([*inputs[:2], *outputs[:1]])
            kernels.append(Kernel(name.removesuffix(_KERNEL), about["op_name"], shapes, seconds))
    return runs


def fast_mean(seconds: Sequence[float] | npt.NDArray[np.float64], share: float = 0.25) -> float:
    """Mean of the fastest share of the times: other programs only ever make a run slower.

    A mean, not the minimum: the trace's microseconds are coarse for small layers.
    """
    ordered = np.sort(np.asarray(seconds, np.float64))
    return float(ordered[: max(1, round(share * ordered.size))].mean())
