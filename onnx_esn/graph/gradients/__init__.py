"""Gradients of ONNX graphs, as ONNX graphs: `backward.append_backward` is the way in."""
