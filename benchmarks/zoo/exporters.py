"""The three ways out of torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# The fused attention of torch's own encoder layers has no ONNX form.
torch.backends.mha.set_fastpath_enabled(False)

Exporter = Callable[[nn.Module, Tensor, Path, bool], None]


class TensorsOnly(nn.Module):
    """A module whose outputs are a flat tuple of tensors, whatever they were."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(_flat(self.net(x)))


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _flat(v)]
    return []


def _torchscript(net: nn.Module, x: Tensor, path: Path, dynamic: bool, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x,),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}} if dynamic else None,
            **options,
        )


def kept(net: nn.Module, x: Tensor, path: Path, dynamic: bool) -> None:
    """TorchScript with BatchNormalization nodes; in eval mode, because the module is."""
    mode = torch.onnx.TrainingMode.PRESERVE
    _torchscript(net, x, path, dynamic, training=mode, do_constant_folding=False)


def folded(net: nn.Module, x: Tensor, path: Path, dynamic: bool) -> None:
    """TorchScript with BatchNorm folded into the convs."""
    _torchscript(net, x, path, dynamic, do_constant_folding=True)


def dynamo(net: nn.Module, x: Tensor, path: Path, dynamic: bool) -> None:
    """The torch.export-based exporter, as it is by default, with its optimiser."""
    logging.disable(logging.WARNING)
    # AUTO leaves an axis fixed where the net insists; one tensor holds all weights either way.
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x,),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=["x"],
            dynamic_shapes=shapes,
            verbose=False,
        )


EXPORTERS: dict[str, Exporter] = {"folded": folded, "kept": kept, "dynamo": dynamo}
