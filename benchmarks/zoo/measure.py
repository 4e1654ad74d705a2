"""Measure every exported model, each in a child process."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks.zoo import records
from benchmarks.zoo.children import Children
from benchmarks.zoo.measuring import measured
from benchmarks.zoo.memory import command_peak, library_peak

PRELOAD = ("numpy", "onnx", "onnxruntime", "scipy.sparse.csgraph", "onnx.reference", "onnx_esn.cli")
PEAKS = {"peak": library_peak, "command_peak": command_peak}
COPIED = ("name", "exporter", "family", "kind")


def measure_all(
    models: Path,
    results: Path,
    names: Sequence[str],
    exporters: Sequence[str],
    *,
    seed: int,
    limit: float,
    jobs: int,
    again: str,
) -> None:
    """Measure, and write a line of results for each exported model.

    Args:
        models: folder with index.jsonl.
        results: file to append to.
        names: nets to measure.
        exporters: and of which exporters.
        seed: of feeds and random removals.
        limit: seconds for one model.
        jobs: processes at a time.
        again: what to measure again: "none", "bad", "memory" (of all, and nothing else) or "all".
    """
    index = records.latest(models / "index.jsonl", "name", "exporter")
    records.append(results, {"name": "", "exporter": "", **_circumstances(seed)})
    done = records.latest(results, "name", "exporter")
    children = Children(PRELOAD)

    def one(key: tuple[Any, ...]) -> None:
        before = done.get(key)
        row = index[key]
        path = str(models / row["file"])
        if before and "export_error" not in before:
            if again == "memory" and not before["crash"]:
                records.append(results, with_peaks(before, path))
            if again not in ("all", "bad") or (again == "bad" and not is_bad(before)):
                return
        outcome = children.call(measured, (path, seed), limit)
        record = {k: row[k] for k in COPIED} | (outcome.value or {"bad": [outcome.error]})
        if key[1] == "wheel":
            record["source"] = row["source"]
        record["crash"] = bool(outcome.error)
        if not record["crash"]:
            record = with_peaks(record, path)
        records.append(results, record)
        text = "; ".join(record["bad"]) or f"{record['left']:.0%} left, {record['prune_s']} s"
        click.echo(f"{time.strftime('%H:%M:%S')} {' '.join(key)}: {text}")

    def with_peaks(record: records.Record, path: str) -> records.Record:
        found = {what: children.call(f, (path,), limit) for what, f in PEAKS.items()}
        bad = [f"{what}: {x.error}" for what, x in found.items() if x.error]
        kept = [x for x in record["bad"] if not x.startswith(tuple(PEAKS))]
        return record | {k: x.value for k, x in found.items()} | {"bad": kept + bad}

    mine = {k: r for k, r in index.items() if k[0] in names and k[1] in exporters}
    for key, row in mine.items():
        if row["error"]:
            failed = {"name": key[0], "exporter": key[1], "export_error": row["error"][:160]}
            records.append(results, failed)
    wanted = [key for key, row in mine.items() if not row["error"]]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, wanted))
    records.compact(results, "name", "exporter")


def _circumstances(seed: int) -> records.Record:
    versions = {}
    for name in ("onnx", "onnxruntime", "torch", "torchvision", "timm", "onnxscript"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"seed": seed, "cpus": os.cpu_count(), "versions": versions}


def is_bad(record: records.Record) -> bool:
    """Whether a model crashed, took too long, or came out wrong."""
    return bool(record["bad"])
