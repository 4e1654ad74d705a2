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

PRELOAD = ("numpy", "onnx", "onnxruntime", "scipy.sparse.csgraph", "onnx.reference")
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
        again: what to measure again: "none", "bad" or "all".
    """
    index = records.latest(models / "index.jsonl", "name", "exporter")
    records.append(results, {"name": "", "exporter": "", **_circumstances(seed)})
    done = records.latest(results, "name", "exporter")
    children = Children(PRELOAD)

    def one(key: tuple[Any, ...]) -> None:
        before = done.get(key)
        if (
            before
            and "export_error" not in before
            and again != "all"
            and not (again == "bad" and is_bad(before))
        ):
            return
        row = index[key]
        outcome = children.call(measured, (str(models / row["file"]), seed), limit)
        record = {k: row[k] for k in COPIED} | (outcome.value or {"bad": [outcome.error]})
        if key[1] == "wheel":
            record["source"] = row["source"]
        record["crash"] = bool(outcome.error)
        records.append(results, record)
        text = "; ".join(record["bad"]) or f"{record['left']:.0%} left, {record['prune_s']} s"
        click.echo(f"{time.strftime('%H:%M:%S')} {' '.join(key)}: {text}")

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
