"""The rule table: operator → what it does to labels. An operator that is not here is a barrier."""

from __future__ import annotations

from onnx_esn.graph.bodies import DOMAIN
from onnx_esn.graph.channels import rules_contraction as contraction
from onnx_esn.graph.channels import rules_elementwise as per
from onnx_esn.graph.channels import rules_flow as flow
from onnx_esn.graph.channels import rules_mixing as mixing
from onnx_esn.graph.channels import rules_movement as moving
from onnx_esn.graph.channels import rules_picking as picking
from onnx_esn.graph.channels.propagation import Rule
from onnx_esn.graph.channels.rules_einsum import einsum
from onnx_esn.graph.evaluate import QUANTIZERS
from onnx_esn.graph.movement import MOVES
from onnx_esn.graph.quant_operators import DOMAIN as QONNX

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
NARY = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or",
    "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
POOLS = (
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "LpPool",
    "MaxPool", "MaxRoiPool", "Resize", "RoiAlign", "Upsample",
)  # fmt: skip
REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

# Operators of onnxruntime's own domain that keep the shape of their first input.
RUNTIME = tuple(f"com.microsoft.{op}" for op in ("BiasGelu", "FastGelu", "Gelu", "QuickGelu"))

RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, per.elementwise),
    **dict.fromkeys(NARY, per.elementwise),
    **dict.fromkeys(POOLS, mixing.spatial),
    **dict.fromkeys(REDUCTIONS, mixing.reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), mixing.normalised),
    "TopK": mixing.top_k,
    **dict.fromkeys(("LpNormalization", "CumSum"), mixing.normalised),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), mixing.layer_norm),
    **dict.fromkeys(("LRN", "MeanVarianceNormalization"), mixing.local_response),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), per.per_channel),
    "GroupNormalization": per.group_norm,
    **dict.fromkeys(QUANTIZERS, per.quantize_linear),
    **dict.fromkeys((f"com.microsoft.{op}" for op in QUANTIZERS), per.quantize_linear),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), contraction.recurrent),
    "Conv": contraction.conv,
    "ConvTranspose": contraction.conv_transpose,
    "Gemm": contraction.gemm,
    "MatMul": contraction.matmul,
    "Einsum": einsum,
    **dict.fromkeys(MOVES, moving.movement),
    "DepthToSpace": moving.depth_to_space,
    "Concat": moving.concat,
    "Pad": moving.pad,
    "GatherElements": picking.gather_elements,
    "ScatterElements": picking.scatter_elements,
    **dict.fromkeys(RUNTIME, per.elementwise),
    **{f"{QONNX}.{op}": per.elementwise for op in ("Quant", "BipolarQuant")},
    **{f"{DOMAIN}.{op}": rule for op, rule in flow.FLOW.items()},
}
