"""onnx-esn: make exported ONNX CNNs cheap without labels, training code or a framework."""
