"""What is measured of one exported model, in a process of its own."""

from __future__ import annotations

import collections
import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.zoo.judging import Runner, judge
from benchmarks.zoo.leftovers import leftovers


def measured(path: str, seed: int) -> dict[str, Any]:
    """Prune one model at ratio .5 and judge the result.

    Raises:
        Exception: whatever the library raises; the caller writes it down as a crash.
    """
    from onnx_esn import Prune
    from onnx_esn.graph.channels.groups import analyse
    from onnx_esn.passes.pruning.replay import planned_removal
    from onnx_esn.plans import PruningPlan
    from tests.oracles.masked import masked_model

    model = onnx.load(path)
    loaded = time.perf_counter()
    locked = _Counter()
    logger = logging.getLogger("onnx_esn.passes.pruning")
    logger.setLevel(logging.INFO)
    logger.addHandler(locked)
    result = Prune(ratio=0.5, absorb="none")(model)
    pruned = time.perf_counter()
    analysis = analyse(model)
    analysed = time.perf_counter()
    before, after = macs_of(model), macs_of(result.model)
    assert isinstance(result.plan, PruningPlan)
    removed = planned_removal(analysis, result.plan)
    record: dict[str, Any] = {
        "nodes": len(model.graph.node),
        "filters": result.details["filters_before"],
        "prunable": round(
            result.details["filters_prunable"] / max(result.details["filters_before"], 1), 4
        ),
        "groups": len(analysis.groups),
        "free_groups": sum(g.prunable for g in analysis.groups),
        "macs": before,
        "left": round(after / before, 4) if before else 1.0,
        "prune_s": round(pruned - loaded, 2),
        "analyse_s": round(analysed - pruned, 2),
        "bytes": Path(path).stat().st_size,
        "retries": locked.count,
        "locks": _lock_reasons(analysis),
        "barriers": _barriers(analysis),
        "bad": [],
    }
    bad = record["bad"]
    if not result.modified and not result.skipped:
        bad.append("silent: nothing removed and no reason given")
    _check_validity(model, result.model, bad)
    record["leftovers"] = leftovers(model, result.model)
    if record["leftovers"]:
        bad.append("dead: weights that nothing reads any more")
    original = Runner(model)
    if removed.any():
        masked = masked_model(analysis, removed)
        _judge(record, "ratio", original, masked, result.model, analysis, seed)
        _judge_random(record, original, analysis, seed)
    return record


def macs_of(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the weight-bearing layers, bodies included, per batch of two."""
    from onnx_esn.graph.channels.groups import analyse

    return sum(x.macs or 0 for x in analyse(model).layers)


class _Counter(logging.Handler):
    """Counts how often a choice had to be made again."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("locked")


def _lock_reasons(analysis: Any) -> list[list[Any]]:
    """The three reasons that lock most filters: share of all filters, reason."""
    total = max(sum(x.filters for x in analysis.layers), 1)
    found: collections.Counter[str] = collections.Counter()
    for layer in analysis.layers:
        first = analysis.first_labels.get(layer.index)
        if first is None:
            found["no labels"] += layer.filters
            continue
        of = analysis.classes.of[first : first + layer.filters]
        for c in of[analysis.classes.locked[of]]:
            found[_general(analysis.classes.reasons[c])] += 1
    return [[round(n / total, 3), reason] for reason, n in found.most_common(3)]


def _general(reason: str) -> str:
    """The reason without the names of nodes and tensors."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)[:120]


def _barriers(analysis: Any) -> list[list[Any]]:
    found = collections.Counter(_general(b.reason) for b in analysis.propagation.barriers)
    return [[n, reason] for reason, n in found.most_common(3)]


def _check_validity(model: onnx.ModelProto, pruned: onnx.ModelProto, bad: list[str]) -> None:
    for what, check in (("checker", _full_check), ("strict inference", _strict)):
        why = check(pruned)
        if why and not check(model):
            bad.append(f"{what}: {why}")


def _full_check(model: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:
        return " ".join(str(e).split())[:200]
    return ""


def _strict(model: onnx.ModelProto) -> str:
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:
        return " ".join(str(e).split())[:200]
    return ""


def _batches(model: onnx.ModelProto) -> list[int | None]:
    stored = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in stored]
    dims = inputs[0].type.tensor_type.shape.dim if inputs else []
    return [1, 3] if dims and not dims[0].HasField("dim_value") else [None]


def _feeds(analysis: Any, model: onnx.ModelProto, batch: int | None, seed: int) -> Any:
    from tests.net import feeds_for

    sizes = dict(analysis.facts.sizes)
    inputs = [i for i in model.graph.input if i.name in sizes]
    dims = {i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in inputs}
    symbol = dims[inputs[0].name][0] if batch is not None else ""
    for name, symbols in dims.items():
        if batch is not None:
            marks = [s == symbol if symbol else k == 0 for k, s in enumerate(symbols)]
            sizes[name] = tuple(batch if m else n for m, n in zip(marks, sizes[name], strict=True))
    return feeds_for(model, sizes, seed=seed + (batch or 0))


def _judge(
    record: dict[str, Any],
    what: str,
    original: Runner,
    masked: onnx.ModelProto,
    sliced: onnx.ModelProto,
    analysis: Any,
    seed: int,
) -> None:
    """Run the sliced model as a user would, then compare it with the masked one."""
    bad: list[str] = record["bad"]
    every = [_feeds(analysis, original.model, b, seed) for b in _batches(original.model)]
    try:
        user = Runner(sliced, optimised=True)
        for feeds in every:
            user(feeds)
        runners = Runner(masked), Runner(sliced)
    except Exception as e:
        if _runs(original.model, every):
            bad.append(f"run ({what}): {' '.join(str(e).split())[:200]}")
        else:
            record["note"] = (
                "not judged: onnxruntime does not run the original model on these feeds"
            )
        return
    for feeds in every:
        verdict = judge(original, *runners, feeds)
        for key in ("error", "noise", "effect"):
            name = f"{what}_{key}"
            value = min(max(record.get(name, 0.0), getattr(verdict, key)), 1e9)  # JSON has no inf
            record[name] = float(f"{value:.2g}")
        record["judged"] = max(record.get("judged", ""), verdict.judged, key=len)
        if verdict.wrong:
            bad.append(f"wrong ({what}): error {verdict.error:.2g}, noise {verdict.noise:.2g}")


def _runs(model: onnx.ModelProto, every: list[Any]) -> bool:
    try:
        runner = Runner(model, optimised=True)
        for feeds in every:
            runner(feeds)
    except Exception:
        return False
    return True


def _judge_random(record: dict[str, Any], original: Runner, analysis: Any, seed: int) -> None:
    """The same with filters removed at random, a different share of each group."""
    from onnx_esn.graph.bodies import restored
    from onnx_esn.graph.channels.groups import analyse_again
    from onnx_esn.graph.rewrite.rewriting import RewriteError, rewrite
    from tests.oracles.equivalence import legal_removal
    from tests.oracles.masked import masked_model

    rng = np.random.default_rng(seed)
    locks: list[Any] = []
    for _ in range(200):
        wanted: list[int] = []
        for group in analysis.groups:
            share = rng.uniform(0, 0.8)
            wanted += [int(c) for c in group.classes if rng.random() < share]
        removed = analysis.removed_labels(legal_removal(analysis, wanted))
        try:
            rewritten = rewrite(analysis, removed)
        except RewriteError as error:
            locks.append((error.labels, error.reason))
            analysis = analyse_again(analysis, locks)
            continue
        break
    else:
        record["bad"].append("random removal: no consistent way in 200 tries")
        return
    if not removed.any():
        return
    sliced = restored(rewritten.model)
    _check_validity(original.model, sliced, record["bad"])
    masked = masked_model(analysis, removed)
    _judge(record, "random", original, masked, sliced, analysis, seed)
