"""Sliced ≡ masked: the check that every pruning test uses."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from onnx_esn.graph.bodies import restored
from onnx_esn.graph.channels.groups import Analysis, analyse
from onnx_esn.graph.rewrite.rewriting import RewriteError, Rewritten, rewrite
from tests.net import feeds_for
from tests.oracles.masked import masked_model
from tests.oracles.precision import HALVES, in_type, uses

# A rounding error before one of these may become a step behind it.
STEPS = {
    "ArgMax", "ArgMin", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor", "Greater", "Less",
    "NonMaxSuppression", "QuantizeLinear", "Round", "Sign", "TopK", "Unique", "Where",
}  # fmt: skip


def run(model, feeds):
    """Outputs of onnxruntime, its optimisations off; of onnx.reference where it has no kernel."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        return run_reference(model, feeds)
    return session.run(None, feeds)


def run_reference(model, feeds):
    """Outputs of the reference evaluator of onnx."""
    return ReferenceEvaluator(model).run(None, feeds)


def relative_difference(expected, got):
    """Largest difference over all outputs, relative to each output's scale."""
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype.kind in "fV":  # bfloat16 is not one of NumPy's own
            a, b = a.astype(np.float64), b.astype(np.float64)
            assert np.isfinite(a).all()
            worst = max(worst, float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(), 1e-6)))
        else:
            worst = max(worst, float((a != b).mean()))
    return worst


def legal_removal(analysis: Analysis, wanted) -> np.ndarray:
    """Per class: the wanted ones in their order, as long as no tensor becomes empty."""
    removed = np.zeros(len(analysis.classes), bool)
    sets = analysis.constraints
    member = [[] for _ in range(len(removed))]
    for k, classes in enumerate(sets):
        for c in classes:
            member[c].append(k)
    left = [len(s) for s in sets]
    for c in wanted:
        if analysis.classes.locked[c] or removed[c]:
            continue
        if all(left[k] > 1 for k in member[c]):
            removed[c] = True
            for k in member[c]:
                left[k] -= 1
    return removed


def free_classes(analysis: Analysis):
    return [int(c) for c in np.flatnonzero(~analysis.classes.locked)]


def rewrite_or_lock(model, wanted, tries=50, shapes=None):
    """Analysis, removed labels, rewritten model, and the reasons for which labels were locked.

    Args:
        model: the model.
        wanted: from an analysis to the classes to remove, in order.
    """
    locks = []
    for _ in range(tries):
        analysis = analyse(model, locks=locks, shapes=shapes)
        removed = analysis.removed_labels(legal_removal(analysis, wanted(analysis)))
        try:
            return analysis, removed, rewrite(analysis, removed), [reason for _, reason in locks]
        except RewriteError as error:
            locks.append((error.labels, error.reason))
    raise AssertionError(f"no way to rewrite: {[r for _, r in locks]}")


def assert_sliced_is_masked(
    analysis: Analysis, removed, rewritten: Rewritten, batches=(2, 3), sizes=None
):
    """The rewritten model is valid and equals the masked one; returns the largest difference.

    Args:
        analysis: the original model and its labels.
        removed: per label, whether it went.
        rewritten: what became of the model.
        batches: sizes of a dynamic batch to try.
        sizes: or else the sizes of all inputs to try.
    """
    old, new = analysis.source, restored(rewritten.model)
    onnx.checker.check_model(new, full_check=True)
    assert [o.SerializeToString() for o in new.graph.output] == [
        o.SerializeToString() for o in old.graph.output
    ]
    masked = masked_model(analysis, removed)
    if sizes is None:
        given = analysis.facts.sizes
        sizes = [{k: with_batch(old, k, v, n) for k, v in given.items()} for n in batches]
    worst = 0.0
    for seed, size in enumerate(sizes):
        if old is not analysis.model:  # put into other words: it must still say the same
            assert difference(old, restored(analysis.model), size, seed) <= tolerance(old)
        worst = max(worst, difference(masked, new, size, seed))
        assert worst <= tolerance(old), worst
    return worst


def tolerance(model):
    """Largest relative difference that rounding explains.

    Half precision is compared in single precision; what is left of it are numbers that are stored
    instead of computed (the root of a channel count, say).
    """
    if uses(model, HALVES):
        return 1e-3
    types = {i.type.tensor_type.elem_type for i in model.graph.input}
    return 1e-9 if TensorProto.DOUBLE in types else 1e-5


def difference(a, b, sizes, seed):
    """Largest relative difference of the outputs of two models.

    Half precision is compared in single precision (the models as they are have to run too), and
    what is badly conditioned in double precision. A step that a rounding error sets off does not
    come back with other inputs, a mistake does.
    """
    allowed = tolerance(a)
    if uses(a, HALVES):
        run(b, feeds_for(b, sizes, seed))
        a, b = (in_type(m, HALVES, TensorProto.FLOAT) for m in (a, b))
    feeds = feeds_for(a, sizes, seed)
    found = relative_difference(run(a, feeds), run(b, feeds))
    if found <= allowed:
        return found
    operators = {node.op_type for node in a.graph.node}
    if not operators & {"QuantizeLinear", "DequantizeLinear", "LRN"}:  # of single precision only
        a, b = (in_type(m, (TensorProto.FLOAT,), TensorProto.DOUBLE) for m in (a, b))
    for other in range(seed, seed + 400 if operators & STEPS else seed + 100, 100):
        feeds = feeds_for(a, sizes, other)
        found = min(found, relative_difference(run(a, feeds), run(b, feeds)))
    return found


def with_batch(model, name, sizes, batch):
    """Sizes of an input at another batch, where its first axis is dynamic."""
    info = next(i for i in model.graph.input if i.name == name)
    dims = info.type.tensor_type.shape.dim
    return (batch, *sizes[1:]) if dims and not dims[0].HasField("dim_value") else sizes


def sizes_of(model, batch=2, height=8, width=12):
    """Sizes of all inputs of a model whose dynamic axes are called N, H and W."""
    sizes = {"N": batch, "H": height, "W": width}
    return {
        i.name: tuple(d.dim_value or sizes[d.dim_param] for d in i.type.tensor_type.shape.dim)
        for i in model.graph.input
    }
