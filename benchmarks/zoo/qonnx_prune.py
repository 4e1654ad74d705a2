"""`python qonnx_prune.py IN OUT RATIO`, run by a Python that has qonnx.

PruneChannels wants to be told what goes. It is told the first filters of every dense hidden conv:
the same positions everywhere, so that layers which a residual sum ties together agree.
"""

from __future__ import annotations

import sys

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.pruning import PruneChannels
from qonnx.util.cleanup import cleanup_model


def main(source: str, target: str, ratio: float) -> None:
    """Prune one file."""
    model = ModelWrapper(source).transform(GemmToMatMul())
    model = cleanup_model(model, preserve_qnt_ops=False, extract_conv_bias=True)
    outputs = {o.name for o in model.graph.output}
    spec = {}
    for node in model.graph.node:
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type != "Conv" or group != 1 or outputs & set(node.output):
            continue
        shape = model.get_tensor_shape(node.input[1])
        if shape and model.get_initializer(node.input[1]) is not None:
            spec[node.input[1]] = {0: set(range(int(shape[0] * ratio)))}
    model.transform(PruneChannels(spec)).save(target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
