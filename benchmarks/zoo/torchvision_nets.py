"""Nets of torchvision: classification, segmentation, detection."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models import detection as det

from benchmarks.zoo.nets import SIZES, Net

CONV = {
    "AlexNet": ["alexnet"],
    "VGG": ["vgg11", "vgg11_bn"],
    "ResNet": ["resnet18", "resnet50"],
    "ResNeXt": ["resnext50_32x4d"],
    "Wide ResNet": ["wide_resnet50_2"],
    "DenseNet": ["densenet121"],
    "GoogLeNet": ["googlenet"],
    "Inception v3": ["inception_v3"],
    "SqueezeNet": ["squeezenet1_0", "squeezenet1_1"],
    "MobileNet v2": ["mobilenet_v2"],
    "MobileNet v3": ["mobilenet_v3_small", "mobilenet_v3_large"],
    "MNASNet": ["mnasnet0_5"],
    "ShuffleNet v2": ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"],
    "EfficientNet": ["efficientnet_b0"],
    "EfficientNet v2": ["efficientnet_v2_s"],
    "RegNet X": ["regnet_x_400mf"],
    "RegNet Y": ["regnet_y_400mf"],
    "ConvNeXt": ["convnext_tiny"],
}
HYBRID = {
    "ViT": ["vit_b_32"],
    "Swin": ["swin_t", "swin_v2_t"],
    "MaxViT": ["maxvit_t"],
}
SEGMENTATION = {
    "FCN": ["fcn_resnet50"],
    "DeepLab v3": ["deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"],
    "LR-ASPP": ["lraspp_mobilenet_v3_large"],
}
DETECTION = {
    "SSD": ["ssd300_vgg16"],
    "SSDlite": ["ssdlite320_mobilenet_v3_large"],
    "RetinaNet": ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"],
    "FCOS": ["fcos_resnet50_fpn"],
    "Faster R-CNN": [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
    ],
    "Mask R-CNN": ["maskrcnn_resnet50_fpn"],
    "Keypoint R-CNN": ["keypointrcnn_resnet50_fpn"],
}
# Their pooling to a fixed size can only be exported where it divides the map.
_SIZES = dict.fromkeys(("alexnet", "vgg11", "vgg11_bn"), (224,))
# Their weight initialisation takes seconds, and the zoo draws its own weights.
_NO_INIT = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


def nets() -> Iterator[Net]:
    """All of them."""
    for kind, families in (("conv", CONV), ("hybrid", HYBRID)):
        for family, names in families.items():
            for name in names:
                sizes = _SIZES.get(name, SIZES)
                yield Net(f"torchvision/{name}", family, kind, partial(_classifier, name), sizes)
    for family, names in SEGMENTATION.items():
        for name in names:
            yield Net(f"torchvision/{name}", family, "dense", partial(_segmenter, name))
    for family, names in DETECTION.items():
        for name in names:
            raw = partial(_raw, name)
            yield Net(f"torchvision/{name}.heads", family, "detector", raw, sizes=(128, 320))
            full = partial(_detector, name)
            yield Net(f"torchvision/{name}", family, "detector", full, (128, 320), image_list=True)


def _classifier(name: str) -> nn.Module:
    extra: dict[str, Any] = _NO_INIT.get(name, {})
    return tv.get_model(name, weights=None, **extra)


def _segmenter(name: str) -> nn.Module:
    return tv.get_model(name, weights=None, weights_backbone=None)


def _detector(name: str) -> nn.Module:
    # Random nets are sure of nothing: without a low threshold there would be no boxes at all.
    low = {"box_score_thresh": 0.0} if "rcnn" in name else {"score_thresh": 0.0}
    size = {} if name.startswith("ssd") else {"min_size": 128, "max_size": 128}
    model = tv.get_model(name, weights=None, weights_backbone=None, **low, **size)
    return _Images(model)


def _raw(name: str) -> nn.Module:
    model = tv.get_model(name, weights=None, weights_backbone=None)
    return _TwoStage(model) if hasattr(model, "roi_heads") else _Heads(model)


class _Images(nn.Module):
    """A detector as a function of one image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Any:
        return self.model([image])


class _Heads(nn.Module):
    """A one-stage detector up to its heads: before anything is selected."""

    def __init__(self, model: det.RetinaNet | det.FCOS | Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


class _TwoStage(nn.Module):
    """A two-stage detector without its selections: a fixed window stands in for the proposals."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.rpn = model.backbone, model.rpn.head
        heads = model.roi_heads
        self.box, self.predictor = heads.box_head, heads.box_predictor
        self.others = nn.ModuleList()
        for kind in ("mask", "keypoint"):
            if getattr(heads, f"has_{kind}")():
                head, predictor = (getattr(heads, f"{kind}_{x}") for x in ("head", "predictor"))
                self.others.append(nn.Sequential(head, predictor))

    def forward(self, x: Tensor) -> Any:
        maps = list(self.backbone(x).values())
        window = maps[0][..., :7, :7]
        if window.shape[-1] < 7:
            window = torch.nn.functional.interpolate(maps[0], size=(7, 7))
        boxes = self.predictor(self.box(window))
        return self.rpn(maps), boxes, [head(window) for head in self.others]
