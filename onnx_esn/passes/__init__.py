"""Passes on an ONNX model: each takes a model and returns a new one with a report."""
