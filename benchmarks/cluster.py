"""A sweep on so many workers beside the same sweep without a cluster, on one machine.

    python benchmarks/cluster.py MODEL --images DIR --eval-images DIR --workers 1,2,4,8

Every process has one thread (of onnxruntime and of linear algebra), so that what is measured is the
work that is spread, not the threads of one machine. Needs the extra [cluster], and as many cores as
workers. Says, too, whether the figures are the same to the last byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from distributed import LocalCluster

ONE = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ONNX_ESN_BLAS_THREADS")
POINTS = ["--targets", "4,3,2,1.5", "--methods", "quantize-only,joint"]
WRITTEN = ("sweep.csv", "sweep.json")


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--images", required=True)
@click.option("--eval-images", required=True)
@click.option("--recipe")
@click.option("--labels")
@click.option("--workers", default="1,2,4,8", show_default=True)
def main(model: str, workers: str, **sets: str | None) -> None:
    """Time `onnx-esn sweep MODEL` with and without a cluster."""
    os.environ.update(dict.fromkeys(ONE, "1"))
    named = [(f"--{key.replace('_', '-')}", value) for key, value in sets.items() if value]
    command = [sys.executable, "-m", "onnx_esn", "sweep", model, "--quiet", "--threads", "1"]
    command += [*(x for pair in named for x in pair), *POINTS]
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        alone, wanted = sweep([*command, "-o", f"{scratch}/alone"])
        print(f"{'no cluster':>12}: {alone:6.1f} s", flush=True)
        for count in map(int, workers.split(",")):
            local = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
            with LocalCluster(**local) as cluster:
                address = ["--scheduler", cluster.scheduler_address]
                seconds, found = sweep([*command, "-o", f"{scratch}/{count}", *address])
            same = "the same bytes" if found == wanted else "OTHER BYTES"
            times = f"{alone / seconds:5.2f} times as fast"
            print(f"{count:>4} workers: {seconds:6.1f} s, {times}, {same}", flush=True)


def sweep(command: list[str]) -> tuple[float, list[bytes]]:
    """Seconds of the whole process, and what it wrote."""
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    folder = Path(command[command.index("-o") + 1])
    return seconds, [(folder / name).read_bytes() for name in WRITTEN]


if __name__ == "__main__":
    main()
