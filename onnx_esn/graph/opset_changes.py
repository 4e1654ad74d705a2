"""From which version on a node of an operator means the same up to operator set 25.

What the changelogs of ONNX say: later versions added types, attributes whose default is what went
before, or optional inputs. An operator that is missing, or older than stated, has changed in a way
that a node does not survive (Softmax of several axes, GroupNormalization's scale per group, …).
Loop, If and Scan: their bodies are looked at node by node. A test holds this table against the
installed schemas.
"""

from __future__ import annotations

# The highest operator set that this table was made for.
HIGHEST = 25

_SINCE: dict[int, str] = {
    1: """
        AveragePool ArgMax ArgMin Concat Constant Conv ConvTranspose DepthToSpace Flatten Gather
        GlobalAveragePool GlobalMaxPool Identity If LRN Loop MatMul MaxPool MaxRoiPool
        RandomNormal RandomNormalLike RandomUniform RandomUniformLike Shape Size Softplus
        Softsign SpaceToDepth Transpose
    """,
    2: "GlobalLpPool LpPool",
    5: "Reshape",
    6: """
        Abs Cast Ceil Elu Exp Floor HardSigmoid InstanceNormalization LeakyRelu Log Max Mean Min
        Neg Reciprocal Relu Selu Sigmoid Sqrt Sum Tanh Tile
    """,
    7: """
        Acos Add And Asin Atan Cos Div Equal GRU Gemm Greater LSTM Less Mul Multinomial Or PRelu
        Pow RNN Sin Sub Tan Xor
    """,
    8: "Expand",
    9: """
        Acosh Asinh Atanh BatchNormalization Compress ConstantOfShape Cosh Erf EyeLike IsNaN
        MaxUnpool MeanVarianceNormalization NonZero OneHot Scan Scatter Sign Sinh Where
    """,
    10: """
        DequantizeLinear IsInf Mod NonMaxSuppression QuantizeLinear ReverseSequence Slice
        ThresholdedRelu TopK
    """,
    11: """
        BitShift Clip CumSum Det GatherElements GatherND Pad Range Round ScatterElements
        ScatterND
    """,
    12: "Celu Dropout GreaterOrEqual LessOrEqual",
    13: """
        Hardmax LogSoftmax ReduceSum Resize Softmax Squeeze Unsqueeze
    """,
    14: "HardSwish Trilu",
    15: "Bernoulli",
    16: "RoiAlign",
    18: """
        Mish ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSumSquare Split
    """,
    19: "DeformConv",
    20: "GridSample",
}
COMPATIBLE_SINCE: dict[str, int] = {
    op: since for since, ops in _SINCE.items() for op in ops.split()
}
