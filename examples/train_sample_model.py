"""Train the sample model and draw the sample image sets that ship with onnx-esn.

This is the only file of the project that needs PyTorch, and nobody has to run it: its output is
in the repository. It writes

- ``examples/fashion_resnet.onnx``: a ResNet with 13 convolutions on the main path, widths
  16/32/64, 174,970 parameters; BatchNormalization stays in the exported file;
- ``calibration/fashion-mnist``: 256 training images without labels;
- ``calibration/fashion-mnist-labeled``: 1,000 test images, 100 of each class, with labels.csv.

Set-up and run::

    apt-get install dataset-fashion-mnist   # Debian: the data; MIT licence, (c) 2017 Zalando SE
    python3 -m venv /tmp/torch-venv
    /tmp/torch-venv/bin/pip install torch==2.13.0 onnx onnxruntime pillow numpy click
    /tmp/torch-venv/bin/python examples/train_sample_model.py

Result with the defaults (seed 7, 8 epochs; about a minute an epoch on two free CPU cores): 92.89 %
of the 10,000 test images and 92.50 % of the 1,000 labeled PNG files, both measured in onnxruntime.
The same seed gives the same file on the same machine; another processor, thread count or torch
version rounds differently, and the figures move a little.
"""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DATA = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# The preprocessing of recipe.toml: (x * SCALE - MEAN) / STD on 0..255 values.
SCALE, MEAN, STD = 0.00392156862745098, 0.286, 0.353
RECIPE = f"""\
# Fashion-MNIST, as examples/train_sample_model.py feeds it to the network.
# x = (pixel * scale - mean) / std; the images already have the size of the model's input.
channels = "gray"
scale = {SCALE}
mean = {MEAN}
std = {STD}
layout = "nchw"
"""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Images N x 28 x 28 and their classes."""

    images: Bytes
    labels: Bytes


# --- data -----------------------------------------------------------------------------------


def read_idx(path: Path) -> Bytes:
    """Read a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_split(folder: Path, name: str) -> Split:
    """Load the split `name`: "train" (60,000 images) or "t10k" (10,000)."""
    files = [folder / f"{name}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    for file in files:
        if not file.is_file():
            raise click.UsageError(
                f"{file} is missing. Install it with `apt-get install dataset-fashion-mnist` "
                "(Debian, Ubuntu), or point --data at a folder that holds the four .gz files of "
                "the Fashion-MNIST repository (zalandoresearch/fashion-mnist on GitHub)."
            )
    return Split(*(read_idx(file) for file in files))


def preprocess(images: Bytes) -> Floats:
    """Turn N x 28 x 28 bytes into the network's N x 1 x 28 x 28 input."""
    scaled = (images.astype(np.float64) * SCALE - MEAN) / STD
    return scaled[:, np.newaxis].astype(np.float32)


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right and shift the batch by up to two pixels each way."""
    flip = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    height, width = batch.shape[2:]
    padded = functional.pad(batch, (2, 2, 2, 2), value=-MEAN / STD)
    rows = torch.randint(0, 5, (len(batch), 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 5, (len(batch), 1), generator=generator) + torch.arange(width)
    image = torch.arange(len(batch))[:, None, None]
    return padded[:, 0][image, rows[:, :, None], columns[:, None, :]][:, None]


# --- network --------------------------------------------------------------------------------


class Block(nn.Module):
    """A basic residual block; a 1x1 convolution carries the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential()
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))


class FashionResNet(nn.Module):
    """Stem, three stages of residual blocks, global average, linear classifier."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), depth: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        inputs = widths[0]
        for stage, width in enumerate(widths, 1):
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.add_module(f"block{index + 1}", Block(inputs, width, stride))
                inputs = width
            self.add_module(f"stage{stage}", blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(inputs, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.flatten(self.pool(x)))


def train(network: FashionResNet, split: Split, epochs: int, seed: int, batch: int = 128) -> None:
    """Train with Nesterov SGD and a one-cycle learning rate."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(preprocess(split.images))
    labels = torch.from_numpy(split.labels.astype(np.int64))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=epochs * steps, pct_start=0.25, final_div_factor=1e3
    )
    network.train()
    for epoch in range(1, epochs + 1):
        start, total, correct = time.perf_counter(), 0.0, 0
        order = torch.randperm(len(images), generator=generator)[: steps * batch]
        for indices in order.split(batch):
            x = augment(images[indices], generator).contiguous(memory_format=torch.channels_last)
            logits = network(x)
            loss = functional.cross_entropy(logits, labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(x)
            correct += int((logits.argmax(1) == labels[indices]).sum())
        click.echo(
            f"epoch {epoch:2d}/{epochs}  loss {total / len(order):.4f}  "
            f"training accuracy {correct / len(order):.2%}  {time.perf_counter() - start:.0f} s"
        )


# --- output ---------------------------------------------------------------------------------


def export(network: FashionResNet, path: Path) -> None:
    """Write `network` as ONNX, its BatchNormalization nodes kept and in inference form.

    `TrainingMode.EVAL` would fold them into the convolutions; `PRESERVE` on a network in eval mode
    does not, but it keeps `training_mode=0`, the default, as an attribute. It goes.
    """
    network = network.to(memory_format=torch.contiguous_format).eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 28, 28),),
        buffer,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=17,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = 10  # the first that lets nodes carry metadata
    model.graph.name = "fashion_resnet"
    model.graph.doc_string = "ResNet for Fashion-MNIST; 28x28 gray images to ten class logits."
    onnx.helper.set_model_props(
        model, {"classes": ", ".join(CLASSES), "data": "Fashion-MNIST, MIT, (c) 2017 Zalando SE"}
    )
    readable = {tensor: tensor_name(tensor) for node in model.graph.node for tensor in node.output}
    for node in model.graph.node:
        node.name = tensor_name(node.name)
        node.input[:] = [readable.get(name, name) for name in node.input]
        node.output[:] = [readable[name] for name in node.output]
        if node.op_type == "BatchNormalization":
            kept = [item for item in node.attribute if item.name != "training_mode" or item.i != 0]
            del node.attribute[:]
            node.attribute.extend(kept)
    del model.graph.value_info[:]
    check_export(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def tensor_name(name: str) -> str:
    """Turn the exporter's `/stage1/block1/conv1/Conv_output_0` into `stage1/block1/conv1/Conv`."""
    return name.removeprefix("/").removesuffix("_output_0")


def check_export(model: onnx.ModelProto) -> None:
    """Fail unless every convolution is followed by an inference-form BatchNormalization."""
    onnx.checker.check_model(model, full_check=True)
    nodes = model.graph.node
    norms = [node for node in nodes if node.op_type == "BatchNormalization"]
    normalized = {node.input[0] for node in norms}
    folded = [n.name for n in nodes if n.op_type == "Conv" and n.output[0] not in normalized]
    training = [n.name for n in norms if len(n.output) != 1 or has_training_mode(n)]
    if folded or training:
        raise click.ClickException(f"BatchNorm folded at {folded}, in training mode at {training}")


def has_training_mode(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "training_mode" for attribute in node.attribute)


def write_set(folder: Path, images: Bytes, labels: Bytes | None) -> None:
    """Write images/NNNN.png, recipe.toml and, with `labels`, labels.csv into `folder`."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index:04d}.png" for index in range(len(images))]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(folder / name, optimize=True)
    (folder / "recipe.toml").write_text(RECIPE)
    if labels is not None:
        with (folder / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "label"])
            writer.writerows(zip(names, labels.tolist(), strict=True))


def write_sets(folder: Path, training: Split, test: Split, seed: int) -> None:
    """Draw both sets; their order is random, so that a name says nothing about the class."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(training.images), 256, replace=False)
    write_set(folder / "fashion-mnist", training.images[drawn], None)
    per_class = [
        rng.choice(np.flatnonzero(test.labels == label), 100, replace=False)
        for label in range(len(CLASSES))
    ]
    drawn = rng.permutation(np.concatenate(per_class))
    write_set(folder / "fashion-mnist-labeled", test.images[drawn], test.labels[drawn])


# --- check ----------------------------------------------------------------------------------


def read_set(folder: Path) -> Split:
    """Read a labeled set back from its PNG files."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([np.asarray(Image.open(folder / row["file"])) for row in rows])
    return Split(images, np.array([int(row["label"]) for row in rows], np.uint8))


def measure_accuracy(model: Path, split: Split) -> float:
    """Top-1 accuracy of an ONNX file in onnxruntime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    correct = 0
    for start in range(0, len(split.images), 500):
        batch = slice(start, start + 500)
        logits = session.run(["logits"], {"input": preprocess(split.images[batch])})[0]
        correct += int((logits.argmax(1) == split.labels[batch]).sum())
    return correct / len(split.images)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEFAULT_DATA,
    show_default=True,
    help="Folder with the four .gz files (Debian package dataset-fashion-mnist).",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=ROOT / "examples" / "fashion_resnet.onnx",
    help="ONNX file to write.",
)
@click.option(
    "--sets",
    type=click.Path(path_type=Path),
    default=ROOT / "calibration",
    help="Folder to write the two image sets into.",
)
@click.option("--epochs", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=7, show_default=True)
@click.option("--threads", default=2, show_default=True, help="CPU threads for PyTorch.")
@click.option("--sets-only", is_flag=True, help="Write the image sets, leave the model alone.")
@click.option("--quick", is_flag=True, help="Smoke test: one epoch over 2,560 images.")
def main(
    data: Path,
    model: Path,
    sets: Path,
    epochs: int,
    seed: int,
    threads: int,
    sets_only: bool,
    quick: bool,
) -> None:
    """Train the sample model, draw the sample image sets, measure the accuracy from the files."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    training, test = load_split(data, "train"), load_split(data, "t10k")
    write_sets(sets, training, test, seed)
    if not sets_only:
        if quick:
            epochs, training = 1, Split(training.images[:2560], training.labels[:2560])
        network = FashionResNet().to(memory_format=torch.channels_last)
        click.echo(f"{sum(p.numel() for p in network.parameters()):,} parameters")
        start = time.perf_counter()
        train(network, training, epochs, seed)
        click.echo(f"trained in {time.perf_counter() - start:.0f} s")
        export(network, model)
    labeled = read_set(sets / "fashion-mnist-labeled")
    click.echo(f"accuracy, 10,000 test images: {measure_accuracy(model, test):.2%}")
    click.echo(f"accuracy, 1,000 labeled PNGs: {measure_accuracy(model, labeled):.2%}")


if __name__ == "__main__":
    main()
