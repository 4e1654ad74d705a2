"""Compress a Keras network straight after tf2onnx.

    python examples/tensorflow_export.py -o small.onnx

Needs tensorflow and tf2onnx. Put your own trained network in the place of `network` and your own
samples in that of `samples`: no labels, a few hundred are enough. tf2onnx puts a Transpose around
what it cannot turn from NHWC to NCHW; onnx-esn follows channels through it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

import onnx_esn


def network() -> tf.keras.Model:
    """Stand-in for a trained network."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    x = image = tf.keras.Input((32, 32, 3), name="image")
    for width, stride in ((16, 1), (32, 2), (32, 2)):
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, layers.Dense(10, name="scores")(x))


def samples(count: int = 64) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Stand-in for inputs as the network gets them: N x height x width x channels, normalized."""
    return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype(np.float32)


def exported(net: tf.keras.Model) -> onnx.ModelProto:
    """The network as ONNX."""
    signature = [tf.TensorSpec((None, 32, 32, 3), tf.float32, name="image")]
    call = tf.function(lambda image: net(image, training=False), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=17)
    return model


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--target-cost", default="10%", show_default=True)
def main(output: Path, target_cost: str) -> None:
    """Export, compress, write."""
    model = exported(network())
    result = onnx_esn.compress(
        model, samples(), target_cost=target_cost, format="qdq", latency=False
    )
    onnx_esn.write_model(result.model, output, model)
    before, after = result.evaluation.models
    print(f"cost {before.esn_prime:,.0f} to {after.esn_prime:,.0f} MAC x bit")
    print(f"file {before.file_bytes:,} to {after.file_bytes:,} bytes")
    print(f"SNR of the outputs {after.agreement.snr_db:.1f} dB")


if __name__ == "__main__":
    main()
