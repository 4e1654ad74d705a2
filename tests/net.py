"""A small builder of ONNX graphs for the tests: one method a layer, names and weights by itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Net:
    """Builds a model node by node; every method returns the name of what it made.

    Weights come from a seeded generator, scaled so that signals neither die nor explode.
    `prefix` begins every name: a body of If, Loop or Scan has a builder of its own.
    """

    def __init__(self, *shape, batch="N", opset=17, ir=8, dtype=np.float32, seed=0, prefix=""):
        self.rng = np.random.default_rng(seed)
        self.prefix = prefix
        self.opset, self.ir, self.dtype = opset, ir, np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.declared: list[onnx.ValueInfoProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}
        if shape:
            self.input("x", batch, *shape)

    def input(self, name, *shape):
        self.inputs.append(self.info(name, *shape))
        return name

    def info(self, name, *shape, dtype=None):
        """A declaration of a tensor."""
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        return helper.make_tensor_value_info(name, elem, shape)

    def store(self, array, name=None):
        """An initializer; floats take the type of the model."""
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        return self.raw(array, name)

    def raw(self, array, name=None):
        """An initializer of exactly this type."""
        name = name or f"{self.prefix}t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values):
        return self.store(np.array(values, np.int64))

    def declare(self, name, *shape):
        """Declare the shape of a tensor that no inference can work out."""
        self.declared.append(self.info(name, *shape))

    def weight(self, *shape, fan_in, name=None):
        return self.store(self.rng.normal(size=shape) * np.sqrt(1.5 / fan_in), name)

    def vector(self, *shape, low=-0.5, high=0.5):
        return self.store(self.rng.uniform(low, high, shape))

    def op(self, op_type, *inputs, outputs=1, name=None, domain="", **attrs):
        """Any node; its only output, or a tuple of them."""
        name = name or f"{self.prefix}{op_type.lower()}_{len(self.nodes)}"
        outs = [f"{name}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, outs, name, domain=domain, **attrs))
        return outs[0] if outputs == 1 else tuple(outs)

    def conv(self, x, c, m, k=3, *, group=1, bias=True, name=None, rank=2, **attrs):
        """Conv of c channels to m filters; pads that keep the size unless told otherwise."""
        kernel = [k] * rank
        if "pads" not in attrs and "auto_pad" not in attrs:
            attrs["pads"] = [k // 2] * (2 * rank)
        fan = c // group * k**rank
        w = self.weight(m, c // group, *kernel, fan_in=fan, name=name and f"{name}.weight")
        inputs = [x, w, *([self.vector(m)] if bias else [])]
        return self.op("Conv", *inputs, group=group, kernel_shape=kernel, name=name, **attrs)

    def deconv(self, x, c, m, k=2, *, group=1, bias=True, **attrs):
        """ConvTranspose of c channels to m filters."""
        w = self.weight(c, m // group, k, k, fan_in=c // group * k)
        inputs = [x, w, *([self.vector(m)] if bias else [])]
        attrs = {"strides": [k, k], **attrs}
        return self.op("ConvTranspose", *inputs, group=group, kernel_shape=[k, k], **attrs)

    def bn(self, x, c, **attrs):
        gamma, beta = self.vector(c, low=0.5, high=1.5), self.vector(c)
        mean, var = self.vector(c, low=-0.3, high=0.3), self.vector(c, low=0.5, high=1.5)
        return self.op("BatchNormalization", x, gamma, beta, mean, var, **attrs)

    def relu(self, x):
        return self.op("Relu", x)

    def conv_bn_relu(self, x, c, m, k=3, **attrs):
        return self.relu(self.bn(self.conv(x, c, m, k, bias=False, **attrs), m))

    def gemm(self, x, c, m, *, bias=True, name=None, **attrs):
        """Gemm with transB=1, as PyTorch exports Linear."""
        w = self.weight(m, c, fan_in=c, name=name and f"{name}.weight")
        inputs = [x, w, *([self.vector(m)] if bias else [])]
        return self.op("Gemm", *inputs, transB=1, name=name, **attrs)

    def linear(self, x, c, m):
        """MatMul and Add, as PyTorch exports Linear on more than two axes."""
        y = self.op("MatMul", x, self.weight(c, m, fan_in=c))
        return self.op("Add", y, self.vector(m))

    def reshape(self, x, *target):
        return self.op("Reshape", x, self.ints(*target))

    def size(self, x, axis):
        """Size of one axis, computed in the graph, as a tensor of shape (1,)."""
        picked = self.op("Gather", self.op("Shape", x), self.store(np.array(axis, np.int64)))
        return self.op("Unsqueeze", picked, self.ints(0))

    def reshape_computed(self, x, *target):
        """Reshape to a target put together in the graph; a name stands for a computed size."""
        parts = [t if isinstance(t, str) else self.ints(t) for t in target]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def head(self, x, c, classes=3):
        """Global average pooling, Flatten, Gemm."""
        return self.gemm(self.op("Flatten", self.op("GlobalAveragePool", x)), c, classes)

    def body(self, *outputs):
        """What was built, as a body of If, Loop or Scan; outputs are declarations."""
        return helper.make_graph(
            self.nodes, f"{self.prefix}body", self.inputs, outputs, self.tensors
        )

    def model(self, *outputs, types=None, shapes=None):
        """The model; `types` and `shapes` by name for outputs that inference cannot settle."""
        graph = helper.make_graph(
            self.nodes, "net", self.inputs, [], self.tensors, value_info=self.declared
        )
        graph.doc_string = "made for a test"
        if self.ir < 4:
            for t in self.tensors:
                graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=self.ir, functions=self.functions
        )
        model.producer_name, model.doc_string = "tests", "tiny"
        model.metadata_props.add(key="author", value="tests")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        known = {v.name: v.type.tensor_type for v in inferred.value_info}
        for name in outputs:
            elem = helper.np_dtype_to_tensor_dtype(self.dtype)
            dims = None
            if name in known:
                elem = known[name].elem_type or elem
                dims = [d.dim_param or d.dim_value or None for d in known[name].shape.dim]
            elem, dims = (types or {}).get(name, elem), (shapes or {}).get(name, dims)
            assert dims is not None, f"give the shape of {name}"
            graph.output.append(helper.make_tensor_value_info(name, elem, dims))
        del model.graph.output[:]
        model.graph.output.extend(graph.output)
        return model


def feeds_for(model, sizes, seed=0):
    """Random feeds of the given sizes."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        value = rng.normal(size=sizes[info.name])
        feeds[info.name] = value.astype(dtype) if dtype.kind == "f" else np.ones_like(value, dtype)
    return feeds
