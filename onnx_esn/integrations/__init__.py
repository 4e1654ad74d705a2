"""onnx-esn inside other tools, one file each; a file needs its tool, the package needs none."""
