"""Compress a network straight after torch.onnx.export, with either of its exporters.

    python examples/torch_export.py -o small.onnx                # torch.export ("dynamo")
    python examples/torch_export.py -o small.onnx --torchscript  # the older exporter

Needs PyTorch, and onnxscript for the first. Put your own trained network in the place of `network`
and your own samples in that of `samples`: no labels, a few hundred are enough.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from torch import nn

import onnx_esn


def network() -> nn.Module:
    """Stand-in for a trained network."""
    torch.manual_seed(0)

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(3, 16, 1), *block(16, 32, 2), *block(32, 32, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def samples(count: int = 64) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Stand-in for inputs as the network gets them: N x channels x height x width, normalized."""
    return np.random.default_rng(0).normal(size=(count, 3, 32, 32)).astype(np.float32)


def exported(net: nn.Module, example: torch.Tensor, *, torchscript: bool) -> Any:
    """What `onnx_esn.compress` takes: an `onnx.ModelProto`, or an `onnx_ir.Model`."""
    names = {"input_names": ["image"], "output_names": ["scores"]}
    if torchscript:
        file = io.BytesIO()
        axes = {"image": {0: "batch"}, "scores": {0: "batch"}}
        # Else PyTorch folds BatchNormalization, whose statistics onnx-esn can make use of.
        unfolded = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        torch.onnx.export(
            net, (example,), file, dynamo=False, dynamic_axes=axes, **unfolded, **names
        )
        return onnx.load_from_string(file.getvalue())
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        net, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, **names
    )
    return program.model


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--torchscript", is_flag=True, help="Use the older exporter.")
@click.option("--target-cost", default="10%", show_default=True)
def main(output: Path, torchscript: bool, target_cost: str) -> None:
    """Export, compress, write."""
    images = samples()
    model = exported(network(), torch.from_numpy(images[:2]), torchscript=torchscript)
    result = onnx_esn.compress(model, images, target_cost=target_cost, format="qdq", latency=False)
    onnx_esn.write_model(result.model, output, model)
    before, after = result.evaluation.models
    print(f"cost {before.esn_prime:,.0f} to {after.esn_prime:,.0f} MAC x bit")
    print(f"file {before.file_bytes:,} to {after.file_bytes:,} bytes")
    print(f"SNR of the outputs {after.agreement.snr_db:.1f} dB")


if __name__ == "__main__":
    main()
