"""How much a model may ask for. Far above any network, far below what a machine cannot hold."""

from __future__ import annotations

# Bodies within bodies; protobuf itself parses about 30.
NESTING = 20
# Nodes of a model once its functions are inlined, and functions that call each other in a row.
NODES = 1 << 20
CALLS = 100
# Values of one graph input at its declared sizes (4 GB as float32).
INPUT_VALUES = 1 << 30
# Values of any tensor, activations included.
VALUES = 1 << 40
# Axes of a tensor: numpy's own limit.
AXES = 64
# Values of a tensor that is written with fewer: a sparse one, or the result of a constant Expand.
GROWN_VALUES = 1 << 26
# Bytes that are read from external files beyond what these files hold.
SHARED_BYTES = 1 << 28
