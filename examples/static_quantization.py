"""Prune between the two steps of onnxruntime's static quantization.

    python examples/static_quantization.py examples/fashion_resnet.onnx calibration/fashion-mnist \
        -o small_int8.onnx --ratio 0.25

Three steps, each a call you can take into a script of your own:

1. `quant_pre_process` (onnxruntime) folds constants and BatchNormalization, and infers shapes;
2. `onnx_esn.prune` removes filters, and refits what is left on the images;
3. `quantize_static` (onnxruntime) makes weights and activations int8, on the same images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import onnx_esn
from onnx_esn.calibration import CalibrationSet, input_specs, open_set


class ImageReader(CalibrationDataReader):
    """An image set of onnx-esn as onnxruntime's calibration data."""

    def __init__(self, images: CalibrationSet, batch_size: int = 16) -> None:
        self._batches = images.batches(batch_size)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else batch.feeds


def quantize(model: Path, images: Path, output: Path, ratio: float) -> None:
    """Write the pruned int8 model."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shape inference would need sympy; a convolutional network does without.
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        pruned = onnx_esn.prune(prepared, ratio=ratio, images=images)
        onnx_esn.write_model(pruned.model, Path(folder) / "pruned.onnx", prepared)
        quantize_static(
            Path(folder) / "pruned.onnx",
            output,
            ImageReader(open_set(images, input_specs(pruned.model))),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--ratio", default=0.25, show_default=True, help="Share of the filters to remove.")
def main(model: Path, images: Path, output: Path, ratio: float) -> None:
    """Prune MODEL and quantize it to int8, calibrated on IMAGES."""
    quantize(model, images, output, ratio)
    comparison = onnx_esn.evaluate([model, output], images, names=["float", "int8"], latency=False)
    before, after = comparison.models
    print(f"MACs {before.macs:,} to {after.macs:,}")
    print(f"file {before.file_bytes:,} to {after.file_bytes:,} bytes")
    print(f"top-1 agreement {after.agreement.top1:.1%}")


if __name__ == "__main__":
    main()
