"""Random weights: nothing zero, nothing tied by accident, and signals of a sane size."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def seed_of(name: str, seed: int) -> int:
    """A seed for a net, the same in every process."""
    return (zlib.crc32(name.encode()) + seed) % 2**31


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Draw all weights anew from torch's global generator.

    Matrices and kernels: normal, He-scaled for convs. Vectors: scales around what they were (but
    never tiny: a LayerScale of 1e-6 would hide its branch), biases around zero.
    """
    scaled = {id(m.weight) for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)}
    for p in model.parameters():
        if p.ndim >= 2 and p.shape[0] > 1 and p[0].numel() > 1:
            gain = 2.0 if id(p) in scaled else 1.0
            p.normal_(0, math.sqrt(gain / p[0].numel()))
        elif p.numel():
            p.copy_(_vector(p))


def _vector(p: Tensor) -> Tensor:
    value = float(p.flatten()[0])
    if p.numel() > 1 and not torch.allclose(p, p.flatten()[0]):
        return p + 0.05 * torch.randn_like(p)
    if value == 0:
        return 0.1 * torch.randn_like(p)
    value = value if abs(value) > 0.1 else math.copysign(0.3, value)
    return value * (0.6 + 0.8 * torch.rand_like(p))


@torch.no_grad()
def calibrate_norms(model: nn.Module, x: Tensor) -> None:
    """Set running statistics to those that `x` has there, each moved at random.

    Statistics drawn without a look at the signals would let those die or explode, and an output
    that is all bias proves nothing.
    """
    norms = [m for m in model.modules() if isinstance(m, _NORMS) and m.track_running_stats]
    hooks = [m.register_forward_pre_hook(_take_statistics) for m in norms]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].transpose(0, 1).flatten(1)
    var, mean = torch.var_mean(x, 1, correction=0)
    var = (var + 1e-2 * var.mean() + 1e-6) * (0.6 + 0.8 * torch.rand_like(var))
    norm.running_mean.copy_(mean + 0.3 * torch.randn_like(mean) * var.sqrt())
    norm.running_var.copy_(var)
