"""Tests of onnx-esn."""

import os

# The workers of pytest-xdist share the cores; threads that wait for each other would take them.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
