"""Train the sample network, keep checkpoints, and hold its ESN_a against that of quantization.

Needs PyTorch, like `train_sample_model.py` beside it, whose network and data it takes. It writes
into a folder

- ``checkpoints/epoch_02_iter_0040.npz`` and so on: the weights, several times an epoch;
- ``accuracy.csv``: the test accuracy at the end of each epoch;
- ``model.onnx``: the network at the end;
- ``quantized.csv``: ESN_a and accuracy of that network at 1 to 8 bits, and with the bits per layer
  that `onnx-esn trace` finds for each epoch.

Run::

    python examples/trace_training.py --out traced
    onnx-esn trace traced/checkpoints --accuracy traced/accuracy.csv -o traced

With the defaults (seed 7, 8 epochs of 8,000 images) it takes some minutes on one free CPU core.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn import functional
from train_sample_model import (
    DEFAULT_DATA,
    FashionResNet,
    Split,
    augment,
    export,
    load_split,
    measure_accuracy,
    preprocess,
)

import onnx_esn

Row = Sequence[object]


def write_checkpoint(network: FashionResNet, path: Path) -> None:
    """The weights of convolutions and the classifier by name; norms and biases stay behind."""
    state = {name: t.detach().numpy() for name, t in network.named_parameters() if t.ndim > 1}
    np.savez(path, **state)


def accuracy(network: FashionResNet, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    with torch.no_grad():
        hits = [
            int((network(x).argmax(1) == y).sum())
            for x, y in zip(images.split(500), labels.split(500), strict=True)
        ]
    network.train()
    return sum(hits) / len(labels)


def train(
    network: FashionResNet,
    training: Split,
    test: Split,
    folder: Path,
    *,
    epochs: int,
    samples: int,
    schedule: str,
    seed: int,
    batch: int = 128,
) -> list[Row]:
    """Nesterov SGD as for the sample model; returns epochs and their test accuracy."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(preprocess(training.images))
    labels = torch.from_numpy(training.labels.astype(np.int64))
    held = torch.from_numpy(preprocess(test.images)), torch.from_numpy(test.labels.astype(np.int64))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = len(images) // batch
    rate: torch.optim.lr_scheduler.LRScheduler
    if schedule == "one-cycle":
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.2, total_steps=epochs * steps, pct_start=0.25, final_div_factor=1e3
        )
    else:
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    marks = set(np.linspace(0, steps, samples + 1).astype(int)[1:-1].tolist())
    write_checkpoint(network, folder / "epoch_00.npz")
    rows: list[Row] = []
    network.train()
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(images), generator=generator)[: steps * batch]
        for step, indices in enumerate(order.split(batch), 1):
            x = augment(images[indices], generator).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(x), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            if step in marks:
                write_checkpoint(network, folder / f"epoch_{epoch:02d}_iter_{step:04d}.npz")
        write_checkpoint(network, folder / f"epoch_{epoch:02d}.npz")
        rows.append((epoch, accuracy(network, *held)))
        click.echo(f"epoch {epoch:2d}/{epochs}  test accuracy {rows[-1][1]:.2%}")
    return rows


def quantized(model: Path, checkpoints: Path, epochs: int, test: Split) -> list[Row]:
    """ESN_a and accuracy of the quantized network: equal bits, then the bits of each epoch."""

    def row(name: str, changed: onnx_esn.PassResult) -> Row:
        path = model.with_name("quantized.onnx")
        onnx_esn.write_model(changed.model, path, model)
        totals = onnx_esn.inspect(changed.model, groups=False).totals
        found = (name, totals.esn_a_memory, totals.bits_per_weight, measure_accuracy(path, test))
        path.unlink()
        click.echo(f"{name:10s}  ESN_a {found[1]:.3g}  {found[2]:.2f} bits  {found[3]:.2%}")
        return found

    rows = [row(f"{b} bits", onnx_esn.quantize(model, bits=b)) for b in range(1, 9)]
    for epoch in range(1, epochs + 1):
        policy = onnx_esn.trace([checkpoints], epoch=epoch).bit_policy()
        rows.append(row(f"epoch {epoch}", onnx_esn.quantize(model, policy=policy)))
    return rows


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([head, *rows])


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=DEFAULT_DATA, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("traced"), show_default=True)
@click.option("--epochs", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--images", default=8_000, show_default=True, help="Training images to use.")
@click.option("--samples", default=4, show_default=True, help="Checkpoints an epoch.")
@click.option(
    "--schedule",
    type=click.Choice(["one-cycle", "constant"]),
    default="one-cycle",
    show_default=True,
    help="Of the learning rate.",
)
@click.option("--seed", default=7, show_default=True)
@click.option("--threads", default=1, show_default=True, help="CPU threads for PyTorch.")
def main(
    data: Path,
    out: Path,
    epochs: int,
    images: int,
    samples: int,
    schedule: str,
    seed: int,
    threads: int,
) -> None:
    """Train, keep checkpoints, quantize at the end."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    training, test = load_split(data, "train"), load_split(data, "t10k")
    training = Split(training.images[:images], training.labels[:images])
    folder = out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    network = FashionResNet().to(memory_format=torch.channels_last)
    rows = train(
        network,
        training,
        test,
        folder,
        epochs=epochs,
        samples=samples,
        schedule=schedule,
        seed=seed,
    )
    write_csv(out / "accuracy.csv", ("epoch", "accuracy"), rows)
    export(network, out / "model.onnx")
    figures = quantized(out / "model.onnx", folder, epochs, test)
    write_csv(out / "quantized.csv", ("what", "esn_a", "bits", "accuracy"), figures)


if __name__ == "__main__":
    main()
