"""The ONNX graph: files, surgery, layers, channel labels and groups, slicing."""
