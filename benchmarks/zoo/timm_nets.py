"""Nets of timm: the smallest member of each family."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import timm
from torch import nn

from benchmarks.zoo.nets import SIZES, Net

CONV = {
    "ResNet": "resnet10t resnet26t resnetaa34d resnetblur18 resnetrs50",
    "ResNet v2": "resnetv2_18 resnetv2_50 resnetv2_50x1_bit resnetv2_50d_gn",
    "ResNeXt": "resnext26ts legacy_seresnext26_32x4d",
    "SE-ResNet": "legacy_seresnet18 seresnet18 seresnext26d_32x4d",
    "SKNet": "skresnet18 skresnext50_32x4d",
    "ECA-ResNet": "ecaresnet26t eca_resnext26ts ecaresnet50d_pruned",
    "GC-ResNet": "gcresnet33ts gcresnext26ts",
    "ResNeSt": "resnest14d resnest50d_4s2x40d",
    "Res2Net": "res2net50_14w_8s res2next50",
    "RegNet X": "regnetx_002",
    "RegNet Y": "regnety_002",
    "RegNet Z": "regnetz_005 regnetz_b16",
    "RegNet V": "regnetv_040",
    "VGG": "vgg11_bn",
    "DenseNet": "densenet121 densenetblur121d",
    "DLA": "dla46_c dla46x_c dla60_res2net",
    "DPN": "dpn48b dpn68",
    "Xception": "legacy_xception xception41 xception41p",
    "Inception v3": "inception_v3",
    "Inception v4": "inception_v4",
    "Inception-ResNet v2": "inception_resnet_v2",
    "NASNet": "nasnetalarge",
    "PNASNet": "pnasnet5large",
    "MobileNet v1": "mobilenetv1_100",
    "MobileNet v2": "mobilenetv2_035",
    "MobileNet v3": "mobilenetv3_small_050 tf_mobilenetv3_small_minimal_100",
    "MobileNet v4": "mobilenetv4_conv_small_035 mobilenetv4_conv_blur_medium",
    "MobileNet EdgeTPU": "mobilenet_edgetpu_v2_xs",
    "PP-LCNet": "lcnet_035 lcnetv2_small",
    "FBNet v3": "fbnetv3_b",
    "EfficientNet": "efficientnet_b0 efficientnet_b0_gn efficientnet_b1_pruned tf_efficientnet_b0",
    "CondConv EfficientNet": "efficientnet_cc_b0_4e",
    "EfficientNet v2": "efficientnetv2_rw_t gc_efficientnetv2_rw_t",
    "EfficientNet-Lite": "efficientnet_lite0",
    "EfficientNet-EdgeTPU": "efficientnet_es",
    "MixNet": "mixnet_s",
    "TinyNet": "tinynet_e",
    "GhostNet v1": "ghostnet_050",
    "GhostNet v2": "ghostnetv2_100",
    "GhostNet v3": "ghostnetv3_050",
    "HardCoRe-NAS": "hardcorenas_a",
    "FBNet-C": "fbnetc_100",
    "SPNASNet": "spnasnet_100",
    "MNASNet": "mnasnet_small semnasnet_050",
    "HRNet": "hrnet_w18_small",
    "CSPNet": "cspresnet50 cspresnext50 cspdarknet53 cs3darknet_s cs3darknet_focus_s",
    "CSPNeXt": "cspnext_tiny",
    "DarkNet": "darknet17 darknet53 sedarknet21",
    "SelecSLS": "selecsls42",
    "VoVNet": "vovnet39a ese_vovnet19b_slim ese_vovnet19b_slim_dw",
    "RepVGG": "repvgg_a0",
    "MobileOne": "mobileone_s0",
    "HGNet": "hgnet_tiny hgnetv2_b0",
    "ReXNet": "rexnet_100 rexnetr_100",
    "NFNet": "nfnet_l0 eca_nfnet_l0 nf_regnet_b0 nf_resnet26 dm_nfnet_f0",
    "TResNet": "tresnet_m",
    "GENet": "gernet_s",
    "ConvNeXt": "convnext_atto convnext_atto_ols convnext_zepto_rms",
    "ConvNeXt v2": "convnextv2_atto",
    "ConvMixer": "convmixer_768_32",
    "InceptionNeXt": "inception_next_atto",
    "RepGhostNet": "repghostnet_050",
    "RepViT": "repvit_m0_9",
    "StarNet": "starnet_s050",
    "MambaOut": "mambaout_femto",
    "FasterNet": "fasternet_t0",
    "RDNet": "rdnet_tiny",
    "ConvFormer": "convformer_s18",
    "PoolFormer": "poolformer_s12 poolformerv2_s12",
}
HYBRID = {
    "CSATv2": "csatv2",
    "FocalNet": "focalnet_tiny_srf",
    "BAT": "bat_resnext26ts",
    "BoTNet": "botnet26t_256",
    "HaloNet": "halonet26t eca_halonext26ts",
    "LambdaNet": "lambda_resnet26t",
    "MobileNet v4 hybrid": "mobilenetv4_hybrid_medium",
    "MobileNet v5": "mobilenetv5_base",
    "ConViT": "convit_tiny",
    "EdgeNeXt": "edgenext_xx_small",
    "FastViT": "fastvit_t8 fastvit_sa12",
    "MobileViT": "mobilevit_xxs",
    "MobileViT v2": "mobilevitv2_050",
    "LeViT": "levit_128s levit_conv_128s",
    "EfficientFormer": "efficientformer_l1",
    "EfficientFormer v2": "efficientformerv2_s0",
    "EfficientViT (MIT)": "efficientvit_b0 efficientvit_l1",
    "EfficientViT (MSRA)": "efficientvit_m0",
    "EfficientViM": "efficientvim_m1",
    "TinyViT": "tiny_vit_5m_224",
    "CAFormer": "caformer_s18",
    "CoAtNet": "coatnet_pico_rw_224 coatnext_nano_rw_224",
    "MaxViT": "maxvit_pico_rw_256",
    "PVT v2": "pvt_v2_b0",
    "Visformer": "visformer_tiny",
    "XCiT": "xcit_nano_12_p16_224",
    "CrossViT": "crossvit_tiny_240",
    "SwiftFormer": "swiftformer_xs",
    "SHViT": "shvit_s1",
    "iFormer": "iformer_t",
    "LowFormer": "lowformer_b0",
    "CPUBone": "cpubone_nano",
    "Next-ViT": "nextvit_small",
    "CoaT": "coat_lite_tiny",
    "DaViT": "davit_tiny",
    "GCViT": "gcvit_xxtiny",
    "MViT v2": "mvitv2_tiny",
    "NesT": "nest_tiny",
    "PiT": "pit_ti_224",
    "Sequencer": "sequencer2d_s",
    "Twins": "twins_pcpvt_small twins_svt_small",
    "ViTamin": "vitamin_small_224",
    "ViT hybrid": "vit_tiny_r_s16_p8_224",
    "ViT": "vit_tiny_patch16_224",
    "Swin": "swin_tiny_patch4_window7_224",
    "CaiT": "cait_xxs24_224",
    "MLP-Mixer": "mixer_s32_224 resmlp_12_224 gmlp_ti16_224",
    "Hiera": "hiera_tiny_224",
}
# Their pooling to a fixed size can only be exported where it divides the map.
_SIZES = {"vgg11_bn": (224,)}


def nets() -> Iterator[Net]:
    """All of them, the purely convolutional ones first."""
    for kind, families in (("conv", CONV), ("hybrid", HYBRID)):
        for family, names in families.items():
            for name in names.split():
                sizes = _SIZES.get(name, SIZES)
                yield Net(f"timm/{name}", family, kind, partial(_create, name), sizes)


def _create(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, exportable=True)
    return model
