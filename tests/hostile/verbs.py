"""Every verb that reads a model: the command lines that a hostile one has to meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.net import Net

SHAPE = (3, 6, 6)  # of the samples that are fed


def sound_model() -> onnx.ModelProto:
    """A small model that nothing is wrong with."""
    net = Net(*SHAPE)
    y = net.conv_bn_relu("x", 3, 8, name="a")
    y = net.relu(net.conv(y, 8, 6, name="b"))
    return net.model(net.head(y, 6))


class Bench:
    """A folder with what the verbs need beside the model; `commands` are those for one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out.onnx"
        self.tensors = folder / "x.npy"
        self.sound = folder / "sound.onnx"
        onnx.save(sound_model(), self.sound)
        rng = np.random.default_rng(0)
        np.save(self.tensors, rng.normal(size=(12, *SHAPE)).astype(np.float32))

    def fast(self, model: Path) -> dict[str, list[object]]:
        """Without images and without running the model over and over."""
        o = ["-o", self.output]
        return {
            "inspect": ["inspect", model, "--json"],
            "groups": ["inspect", model, "--groups"],
            "annotate": ["annotate", model, *o],
            "equalize": ["equalize", model, *o],
            "rotate": ["rotate", model, *o],
            "prune": ["prune", model, *o, "--ratio", 0.4],
            "exact": ["prune", model, *o, "--exact"],
            "spatial": ["prune", model, *o, "--ratio", 0.4, "--granularity", "spatial"],
            "fake": ["quantize", model, *o, "--bits", 3],
            "qdq": ["quantize", model, *o, "--bits", 4, "--format", "qdq"],
            "qonnx": ["quantize", model, *o, "--bits", 2, "--format", "qonnx"],
            "budget": ["quantize", model, *o, "--target-cost", "10%"],
            "convert": ["convert", model, *o, "--format", "qdq"],
            "compare": ["compare", self.sound, model],
        }

    def slow(self, model: Path) -> dict[str, list[object]]:
        """With tensors to run the model on."""
        o, images = ["-o", self.output], ["--images", self.tensors]
        timed = ["--points", 4, "--repeat", 1]
        return {
            "qcqp": ["prune", model, *o, "--selection", "qcqp", "--target-macs", "60%",
                     "--solver-time", 2],
            "refit": ["prune", model, *o, "--ratio", 0.4, *images],
            "compensated": ["quantize", model, *o, "--bits", 3, *images],
            "aciq": ["quantize", model, *o, "--bits", 3, "--method", "aciq", *images],
            "qil": ["quantize", model, *o, "--bits", 3, "--method", "qil", "--epochs", 1, *images],
            "activations": ["quantize", model, *o, "--bits", 4, "--activations", "uint8", *images],
            "recalibrate": ["recalibrate", model, *o, *images],
            "towards": ["recalibrate", model, *o, *images, "--reference", self.sound],
            "compress": ["compress", model, *o, *images, "--target-cost", "20%"],
            "compared": ["compare", model, self.sound, *images],
            "evaluate": ["evaluate", self.sound, model, *images],
            "analyze": ["analyze", model, *images],
            "profile": ["profile", model, "-o", self.folder / "latency.json", *timed],
            "sweep": ["sweep", model, *images, "-o", self.folder / "sweep", "--targets", 3,
                      "--methods", "nearest"],
        }  # fmt: skip

    def commands(self, model: Path) -> dict[str, list[object]]:
        """All of them, by a name."""
        return {**self.fast(model), **self.slow(model)}
