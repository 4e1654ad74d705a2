"""Small nets of our own: detectors of the YOLO type, U-Net, super-resolution."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.nets import Net


def nets() -> Iterator[Net]:
    """All of them."""
    yield Net("own/yolo_c2f", "YOLO", "detector", lambda: Yolo(C2f, Decoupled))
    yield Net("own/yolo_c2f_plain_head", "YOLO", "detector", lambda: Yolo(C2f, PlainDecoupled))
    yield Net("own/yolo_csp", "YOLO", "detector", lambda: Yolo(Csp, AnchorHead))
    yield Net("own/yolo_elan", "YOLO", "detector", lambda: Yolo(Elan, PlainDecoupled))
    yield Net("own/unet", "U-Net", "dense", lambda: UNet(up="deconv"))
    yield Net("own/unet_resize", "U-Net", "dense", lambda: UNet(up="resize"))
    yield Net("own/pixel_shuffle", "Super-resolution", "dense", SuperResolution)


class Cbs(nn.Sequential):
    """Conv, BatchNorm, SiLU."""

    def __init__(self, c: int, m: int, k: int = 1, stride: int = 1, act: bool = True) -> None:
        conv = nn.Conv2d(c, m, k, stride, k // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(m), nn.SiLU() if act else nn.Identity())


class Bottleneck(nn.Module):
    """Two convs with an optional shortcut."""

    def __init__(self, c: int, m: int, shortcut: bool) -> None:
        super().__init__()
        self.body, self.add = nn.Sequential(Cbs(c, m, 3), Cbs(m, c, 3)), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.add else y


class C2f(nn.Module):
    """A conv that is split in two; every bottleneck's output is concatenated."""

    def __init__(self, c: int, m: int, n: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        self.cv1, self.cv2 = Cbs(c, m), Cbs((2 + n) * (m // 2), m)
        self.blocks = nn.ModuleList(Bottleneck(m // 2, m // 2, shortcut) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class Csp(nn.Module):
    """Two branches, one with bottlenecks, concatenated."""

    def __init__(self, c: int, m: int, n: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        h = m // 2
        self.left, self.right, self.out = Cbs(c, h), Cbs(c, h), Cbs(2 * h, m)
        self.blocks = nn.Sequential(*(Bottleneck(h, h, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.blocks(self.left(x)), self.right(x)]
        y: Tensor = self.out(torch.cat(parts, 1))
        return y


class Elan(nn.Module):
    """A chain whose every second link is concatenated, max pooling beside it."""

    def __init__(self, c: int, m: int, n: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        h = m // 2
        self.left, self.right = Cbs(c, h), Cbs(c, h)
        self.chain = nn.ModuleList(nn.Sequential(Cbs(h, h, 3), Cbs(h, h, 3)) for _ in range(n + 1))
        self.out = Cbs((3 + n) * h, m)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.left(x), self.right(x)]
        for link in self.chain:
            parts.append(link(parts[-1]))
        y: Tensor = self.out(torch.cat(parts[::-1], 1))
        return y


class Sppf(nn.Module):
    """Pooled three times in a row, all of it concatenated."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Cbs(c, c // 2), Cbs(2 * c, c)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class Decoupled(nn.Module):
    """Box and class branches a level; boxes as the mean of a distribution over 16 bins."""

    bins = 16

    def __init__(self, widths: tuple[int, ...], classes: int = 20) -> None:
        super().__init__()
        self.box = nn.ModuleList(_branch(c, 4 * self.bins) for c in widths)
        self.cls = nn.ModuleList(_branch(c, classes) for c in widths)
        self.register_buffer("steps", torch.arange(self.bins, dtype=torch.float32))

    def levels(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes and classes of all levels, flattened and joined: N × channels × anchors."""
        boxes = [b(x).flatten(2) for b, x in zip(self.box, maps, strict=True)]
        classes = [c(x).flatten(2) for c, x in zip(self.cls, maps, strict=True)]
        return torch.cat(boxes, 2), torch.cat(classes, 2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        boxes, classes = self.levels(maps)
        n, _, anchors = boxes.shape
        spread = boxes.view(n, 4, self.bins, anchors).softmax(2)
        sides = (spread * self.steps.view(1, 1, -1, 1)).sum(2)
        near, far = sides.chunk(2, 1)
        return torch.cat([(far - near) / 2, far + near, classes.sigmoid()], 1)


class PlainDecoupled(Decoupled):
    """The same with plain boxes."""

    bins = 1

    def forward(self, maps: list[Tensor]) -> Tensor:
        boxes, classes = self.levels(maps)
        return torch.cat([boxes.exp(), classes.sigmoid()], 1).transpose(1, 2)


def _branch(c: int, out: int) -> nn.Module:
    return nn.Sequential(Cbs(c, 32, 3), Cbs(32, 32, 3), nn.Conv2d(32, out, 1))


class AnchorHead(nn.Module):
    """Three anchors a cell: reshape to N × 3 × H × W × outputs, decode, join the levels."""

    def __init__(self, widths: tuple[int, ...], classes: int = 20) -> None:
        super().__init__()
        self.outputs = 5 + classes
        self.heads = nn.ModuleList(nn.Conv2d(c, 3 * self.outputs, 1) for c in widths)
        self.register_buffer("anchors", torch.rand(len(widths), 1, 3, 1, 1, 2) + 0.5)

    def forward(self, maps: list[Tensor]) -> Tensor:
        found = []
        for k, (head, x) in enumerate(zip(self.heads, maps, strict=True)):
            n, _, h, w = x.shape
            y = head(x).view(n, 3, self.outputs, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.arange(h).float(), torch.arange(w).float()
            cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2)
            middle = (y[..., :2] * 2 - 0.5 + cells) / w
            extent = (y[..., 2:4] * 2) ** 2 * self.anchors[k]
            found.append(torch.cat([middle, extent, y[..., 4:]], -1).reshape(n, -1, self.outputs))
        return torch.cat(found, 1)


class Yolo(nn.Module):
    """Backbone with five strides, PAN neck, heads at three levels."""

    def __init__(self, block: type[nn.Module], head: type[nn.Module]) -> None:
        super().__init__()
        w = (16, 32, 64, 96, 128)
        self.stem = Cbs(3, w[0], 3, 2)
        self.down = nn.ModuleList(Cbs(a, b, 3, 2) for a, b in pairwise(w))
        self.stages = nn.ModuleList(block(c, c, 2, True) for c in w[1:])
        self.sppf = Sppf(w[4])
        self.up4, self.up3 = block(w[4] + w[3], w[3]), block(w[3] + w[2], w[2])
        self.to4, self.to5 = Cbs(w[2], w[2], 3, 2), Cbs(w[3], w[3], 3, 2)
        self.pan4, self.pan5 = block(w[2] + w[3], w[3]), block(w[3] + w[4], w[4])
        self.head = head(w[2:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = []
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x))
            maps.append(x)
        p3, p4, p5 = maps[1], maps[2], self.sppf(maps[3])
        p4 = self.up4(torch.cat([F.interpolate(p5, scale_factor=2.0), p4], 1))
        p3 = self.up3(torch.cat([F.interpolate(p4, scale_factor=2.0), p3], 1))
        p4 = self.pan4(torch.cat([self.to4(p3), p4], 1))
        p5 = self.pan5(torch.cat([self.to5(p4), p5], 1))
        y: Tensor = self.head([p3, p4, p5])
        return y


class UNet(nn.Module):
    """Three levels with skip concatenations; up by ConvTranspose, or by Resize and a conv."""

    def __init__(self, up: str) -> None:
        super().__init__()
        w = (16, 32, 64, 96)
        self.enter = nn.ModuleList(_double(a, b) for a, b in zip((3, *w), w, strict=False))
        pairs = list(zip(w[::-1], w[-2::-1], strict=False))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, 2)
            if up == "deconv"
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(a, b, 1))
            for a, b in pairs
        )
        self.leave = nn.ModuleList(_double(2 * b, b) for _, b in pairs)
        self.last = nn.Conv2d(w[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for k, stage in enumerate(self.enter):
            x = stage(F.max_pool2d(x, 2) if k else x)
            skips.append(x)
        for up, stage, skip in zip(self.ups, self.leave, skips[-2::-1], strict=True):
            x = stage(torch.cat([skip, up(x)], 1))
        y: Tensor = self.last(x)
        return y


def _double(c: int, m: int) -> nn.Module:
    layers = [[nn.Conv2d(a, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU()] for a in (c, m)]
    return nn.Sequential(*layers[0], *layers[1])


class SuperResolution(nn.Module):
    """Residual body, two sub-pixel steps, a bilinear skip from input to output."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.PReLU(width),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(3)
        )
        self.ups = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = start = self.first(x)
        for block in self.body:
            y = y + 0.2 * block(y)
        y = self.last(self.ups(y + start))
        skip = F.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=False)
        return y + skip
