"""Is the sliced model the masked one? Outputs, or what is there before anything is selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_esn.graph.bodies import restored
from onnx_esn.graph.hoisting import captured

Array = NDArray[Any]
Feeds = dict[str, Array]

# A tiny difference in what these read can change what they return altogether.
SELECTIONS = {
    "TopK",
    "NonMaxSuppression",
    "NonZero",
    "Compress",
    "Unique",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
}
CLOSE = 1e-4
_LOUD = 1e-3


@dataclass(frozen=True)
class Verdict:
    """How far a model is from the masked one.

    Attributes:
        error: largest difference relative to an output's scale; inf where shapes differ.
        noise: the same between the masked model and itself with an input moved by 1e-7.
        effect: the same between the masked model and the original one: what there was to get wrong.
        judged: "outputs", or "before selection" where outputs differ and are selected discretely.
    """

    error: float
    noise: float
    effect: float
    judged: str

    @property
    def wrong(self) -> bool:
        """Whether rounding cannot explain the difference."""
        return not self.error <= max(CLOSE, 10 * self.noise)


class Runner:
    """A model in onnxruntime, optimisations off; in onnx.reference where it lacks a kernel."""

    def __init__(self, model: onnx.ModelProto, *, optimised: bool = False) -> None:
        self.model = model = restored(model)
        options = ort.SessionOptions()
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._reference: ReferenceEvaluator | None = None
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except ort.capi.onnxruntime_pybind11_state.NotImplemented:
            if optimised:
                raise
            self._reference = ReferenceEvaluator(model)

    def __call__(self, feeds: Feeds) -> list[Array]:
        """The outputs."""
        found = (self._reference or self._session).run(None, feeds)
        return [np.asarray(x) for x in found]


def judge(original: Runner, masked: Runner, sliced: Runner, feeds: Feeds) -> Verdict:
    """Run all three and compare."""
    verdict = _compared(original, masked, sliced, feeds, "outputs")
    before = frontier(masked.model) if not verdict.error <= CLOSE else []
    if not before:
        return verdict
    a, b, c = (Runner(with_outputs(r.model, before)) for r in (original, masked, sliced))
    return _compared(a, b, c, feeds, "before selection")


def _compared(
    original: Runner, masked: Runner, sliced: Runner, feeds: Feeds, judged: str
) -> Verdict:
    expected = masked(feeds)
    rng = np.random.default_rng(0)
    moved = {
        k: (v * (1 + 1e-7 * rng.choice([-1, 1], v.shape))).astype(v.dtype)
        if v.dtype.kind == "f"
        else v
        for k, v in feeds.items()
    }
    before = original(feeds)
    # A net that hardly says anything any more is not judged by its last digits.
    floors = [_LOUD * _largest(x) for x in before]
    return Verdict(
        difference(expected, sliced(feeds), floors),
        difference(expected, masked(moved), floors),
        difference(expected, before, floors),
        judged,
    )


def _largest(x: Array) -> float:
    if x.dtype.kind != "f":
        return 0.0
    return float(np.abs(np.nan_to_num(x, posinf=0, neginf=0)).max(initial=0))


def difference(expected: Sequence[Array], got: Sequence[Array], floors: Sequence[float]) -> float:
    """Largest over all outputs, each relative to its scale, but at least to its floor."""
    worst = 0.0
    for a, b, floor in zip(expected, got, floors, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.dtype.kind != "f":
            worst = max(worst, float((a != b).mean()) if a.size else 0.0)
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        if not np.isfinite(x).all() or not np.isfinite(y).all():
            same = np.array_equal(np.isfinite(x), np.isfinite(y))
            if not same:
                return float("inf")
            x, y = np.nan_to_num(x, posinf=0, neginf=0), np.nan_to_num(y, posinf=0, neginf=0)
        scale = max(float(np.abs(x).max(initial=0)), floor, 1e-12)
        worst = max(worst, float(np.abs(x - y).max(initial=0)) / scale)
    return worst


def frontier(model: onnx.ModelProto) -> list[str]:
    """Float tensors that are computed from the input and read by the first selections."""
    stored = {t.name for t in model.graph.initializer}
    depends = {i.name for i in model.graph.input} - stored
    selected: set[str] = set()
    found: dict[str, None] = {}
    made: set[str] = set()
    for node in model.graph.node:
        reads = dict.fromkeys([*node.input, *captured(node)])
        if node.op_type in ("Shape", "Size") or depends.isdisjoint(reads):
            continue
        depends.update(node.output)
        made.update(node.output)
        if not selected.isdisjoint(reads):
            selected.update(node.output)
        elif node.op_type in SELECTIONS or node.op_type in ("If", "Loop", "Scan"):
            found.update(dict.fromkeys(x for x in reads if x in made))
            selected.update(node.output)
    if found:
        rest = (o.name for o in model.graph.output if o.name not in selected)
        found.update(dict.fromkeys(x for x in rest if x in made))
    return list(found)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same model with other outputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return changed
