"""Images to batches to statistics; the only package that runs onnxruntime."""
