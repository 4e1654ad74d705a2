"""Random CNN graphs, valid by construction: what the fuzzer feeds to the pruner.

A graph grows node by node. Each step draws an operator that fits one of the tensors so far; the
shape of every tensor is known here (the batch axis is 0 and stands for any size), so that no
shape inference is needed to stay valid. Loose ends get a head of their own or become outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from tests.net import Net

N = 0  # the batch axis in a shape
UNARY = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "LeakyRelu",
    "Abs",
    "Neg",
    "Softplus",
    "Identity",
)
LARGEST = 4096


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]

    @property
    def rank(self):
        return len(self.shape)


class MisfitError(Exception):
    """The operator does not fit this tensor; another one is drawn."""


class Grower:
    """Grows one graph with the choices of a random generator (hypothesis has one that shrinks)."""

    def __init__(self, random):
        self.random = random
        self.batch = self.choose(("N", "N", 2))
        self.net = Net(opset=self.choose((13, 17, 18)), seed=self.pick(0, 9))
        self.pool: list[Tensor] = []
        self.used: set[str] = set()
        for i in range(self.choose((1, 1, 1, 2))):
            c, size = self.pick(1, 3), self.pick(4, 8)
            shape = (c, size, size)
            self.add(self.net.input(f"x{i}", self.batch, *shape), (N, *shape))

    # Choices.

    def pick(self, low, high):
        return self.random.randint(low, high)

    def choose(self, options):
        options = list(options)
        if not options:
            raise MisfitError
        return options[self.random.randrange(len(options))]

    def flip(self):
        return self.random.random() < 0.5

    # Growing.

    def add(self, name, shape):
        if prod(d or 2 for d in shape) > LARGEST:
            raise MisfitError
        t = Tensor(name, tuple(shape))
        self.pool.append(t)
        return t

    def op(self, op_type, inputs, shape, **attrs):
        names = [t.name if isinstance(t, Tensor) else t for t in inputs]
        self.used.update(names)
        return self.add(self.net.op(op_type, *names, **attrs), shape)

    def step(self):
        """Add one random operator (or a small idiom of several)."""
        saved = len(self.net.nodes), len(self.pool), set(self.used)
        x = self.choose(self.pool[-4:])
        rule = self.choose(RULES)
        try:
            rule(self, x)
        except MisfitError:
            del self.net.nodes[saved[0] :]
            del self.pool[saved[1] :]
            self.used = saved[2]

    def same_shape(self, x):
        return self.choose(t for t in self.pool if t.shape == x.shape and t is not x)

    def axis(self, x, least=1):
        """A random axis but the batch's, of at least `least` positions."""
        return self.choose(a for a in range(x.rank) if x.shape[a] >= least and x.shape[a] != N)

    def signed(self, axis, rank):
        return axis - rank if self.flip() else axis

    def finish(self):
        """Give every loose end a head, or make it an output."""
        outputs = {}
        for t in [t for t in self.pool if t.name not in self.used]:
            name, shape = t.name, t.shape
            if self.pick(0, 7) > 0:
                name, shape = self.head(t)
            outputs[name] = [self.batch if d == N else d for d in shape]
        return self.net.model(*outputs, shapes=outputs)

    def head(self, t):
        if t.rank == 4 and t.shape[0] == N and self.flip():
            k = 1 if min(t.shape[2:]) < 3 or self.flip() else 3
            return self.net.conv(t.name, t.shape[1], 2, k), (N, 2, *t.shape[2:])
        n = prod(d for d in t.shape if d != N)
        return self.net.gemm(self.net.reshape(t.name, -1, n), n, 3), (N, 3)


def image(x):
    """Whether x is laid out as N, C, H, W."""
    if x.rank != 4 or x.shape[0] != N or N in x.shape[1:]:
        raise MisfitError
    return x.shape[1:]


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


# Rules: each adds what it names to the tensor x.


def conv(g, x):
    c, h, w = image(x)
    group = g.choose([*list(divisors(c)), 1, 1, 1])
    m = g.pick(1, max(1, 12 // group)) * group
    k = g.choose([k for k in (1, 2, 3) if k <= min(h, w)])
    stride = g.choose((1, 1, 2))
    dilation = g.choose((1, 1, 2)) if (k - 1) * 2 + 1 <= min(h, w) else 1
    span = (k - 1) * dilation + 1
    attrs = {"strides": [stride] * 2, "dilations": [dilation] * 2}
    if dilation == 1 and g.pick(0, 5) == 0:
        attrs["auto_pad"] = g.choose(("SAME_UPPER", "SAME_LOWER"))
        oh, ow = -(-h // stride), -(-w // stride)
    else:
        pads = [g.pick(0, k // 2) for _ in range(4)]
        attrs["pads"] = pads
        oh = (h + pads[0] + pads[2] - span) // stride + 1
        ow = (w + pads[1] + pads[3] - span) // stride + 1
    g.used.add(x.name)
    g.add(g.net.conv(x.name, c, m, k, group=group, bias=g.flip(), **attrs), (N, m, oh, ow))


def plain_conv(g, x):
    """The everyday layer: 3 × 3 or 1 × 1, same size, then perhaps BatchNorm and ReLU."""
    c, h, w = image(x)
    m = g.choose((2, 4, 6, 8, c))
    g.used.add(x.name)
    y = g.add(g.net.conv(x.name, c, m, g.choose((1, 3)), bias=g.flip()), (N, m, h, w))
    if g.flip():
        batch_norm(g, y)
    if g.flip():
        unary(g, g.pool[-1])


def depthwise(g, x):
    c, h, w = image(x)
    m = c * g.choose((1, 1, 2, 3))
    g.used.add(x.name)
    g.add(g.net.conv(x.name, c, m, 3, group=c, bias=g.flip()), (N, m, h, w))


def deconv(g, x):
    c, h, w = image(x)
    group = g.choose([*list(divisors(c)), 1, 1])
    m = group * g.pick(1, max(1, 8 // group))
    k, stride = g.pick(1, 3), g.pick(1, 2)
    pad = g.pick(0, (k - 1) // 2)
    extra = g.pick(0, stride - 1)
    size = [(d - 1) * stride + k - 2 * pad + extra for d in (h, w)]
    if min(size) < 1:
        raise MisfitError
    g.used.add(x.name)
    name = g.net.deconv(
        x.name, c, m, k, group=group, bias=g.flip(), strides=[stride] * 2, pads=[pad] * 4,
        output_padding=[extra] * 2,
    )  # fmt: skip
    g.add(name, (N, m, *size))


def batch_norm(g, x):
    if x.rank < 2 or N in x.shape[1:]:
        raise MisfitError
    g.used.add(x.name)
    g.add(g.net.bn(x.name, x.shape[1]), x.shape)


def unary(g, x):
    g.op(g.choose(UNARY), [x], x.shape)


def clip(g, x):
    g.op("Clip", [x, g.net.store(np.array(-1.0)), g.net.store(np.array(1.0))], x.shape)


def prelu(g, x):
    if x.rank < 2 or N in x.shape[1:]:
        raise MisfitError
    slope = [x.shape[1]] + [1] * (x.rank - 2) if g.flip() else [1]
    g.op("PRelu", [x, g.net.vector(*slope)], x.shape)


def instance_norm(g, x):
    c, h, w = image(x)
    if h * w < 4:
        raise MisfitError
    g.op("InstanceNormalization", [x, g.net.vector(c), g.net.vector(c)], x.shape)


def group_norm(g, x):
    """As exported: Reshape to groups, InstanceNormalization, Reshape back, scale and shift."""
    c, h, w = image(x)
    groups = g.choose(divisors(c))
    if h * w < 4:
        raise MisfitError
    y = g.op("Reshape", [x, g.net.ints(0, groups, -1)], (N, groups, c // groups * h * w))
    ones, zeros = g.net.store(np.ones(groups)), g.net.store(np.zeros(groups))
    y = g.op("InstanceNormalization", [y, ones, zeros], y.shape)
    y = g.op("Reshape", [y, g.net.op("Shape", x.name)], x.shape)
    y = g.op("Mul", [y, g.net.vector(c, 1, 1)], x.shape)
    g.op("Add", [y, g.net.vector(c, 1, 1)], x.shape)


def layer_norm(g, x):
    if g.net.opset < 17 or x.rank < 2 or x.shape[-1] in (N, 1):
        raise MisfitError
    n = x.shape[-1]
    g.op("LayerNormalization", [x, g.net.vector(n), g.net.vector(n)], x.shape, axis=-1)


def binary(g, x):
    y = g.same_shape(x)
    g.op(g.choose(("Add", "Add", "Add", "Mul", "Sub", "Max")), [x, y], x.shape)


def broadcast(g, x):
    """With another tensor that broadcasts to x: gates, position masks."""

    def fits(t):
        return (
            t is not x
            and t.rank == x.rank
            and all(a in (b, 1) for a, b in zip(t.shape, x.shape, strict=True))
        )

    y = g.choose(t for t in g.pool if fits(t))
    g.op(g.choose(("Add", "Mul")), [y, x] if g.flip() else [x, y], x.shape)


def with_constant(g, x):
    """Add or multiply a constant of any shape that broadcasts."""
    shape = [d if d != N and g.flip() else 1 for d in x.shape]
    shape = shape[g.pick(0, len(shape)) :]
    g.op(g.choose(("Add", "Mul", "Sub")), [x, g.net.vector(*shape)], x.shape)


def where(g, x):
    shape = [1 if d == N else d for d in x.shape]
    mask = g.net.store(g.net.rng.integers(0, 2, shape).astype(bool))
    g.op("Where", [mask, x, g.net.store(np.array(0.25))], x.shape)


def concat(g, x):
    axis = g.axis(x)
    rest = [a for a in range(x.rank) if a != axis]
    others = [t for t in g.pool if t.rank == x.rank and all(t.shape[a] == x.shape[a] for a in rest)]
    parts = [x, *(g.choose(others) for _ in range(g.pick(1, 2)))]
    if any(N in (t.shape[axis],) for t in parts):
        raise MisfitError
    total = sum(t.shape[axis] for t in parts)
    shape = [*x.shape[:axis], total, *x.shape[axis + 1 :]]
    g.op("Concat", parts, shape, axis=g.signed(axis, x.rank))


def split(g, x):
    axis = g.axis(x, 2)
    n = x.shape[axis]
    if g.flip() and n % 2 == 0:
        sizes = [n // 2] * 2
    else:
        first = g.pick(1, n - 1)
        sizes = [first, n - first]
    names = g.net.op("Split", x.name, g.net.ints(*sizes), outputs=2, axis=g.signed(axis, x.rank))
    g.used.add(x.name)
    for name, size in zip(names, sizes, strict=True):
        g.add(name, [*x.shape[:axis], size, *x.shape[axis + 1 :]])


def halves(g, x):
    """Chunk, its bounds computed in the graph: Shape → Gather → Div → Slice."""
    axis = g.axis(x, 2)
    n = x.shape[axis]
    size = g.net.size(x.name, axis)
    half = g.net.op("Div", size, g.net.ints(2))
    zero, at = g.net.ints(0), g.net.ints(axis)
    for start, end, left in ((zero, half, n // 2), (half, size, n - n // 2)):
        g.op("Slice", [x, start, end, at], [*x.shape[:axis], left, *x.shape[axis + 1 :]])


def slice_(g, x):
    axis = g.axis(x, 2)
    n = x.shape[axis]
    if g.flip():
        start, end, step = g.pick(0, n - 1), n, g.choose((1, 1, 2))
        positions = range(n)[start:end:step]
    elif g.flip():
        start, end, step = -1, -(n + 1), -g.choose((1, 2))
        positions = range(n)[::step]
    else:
        end, start, step = g.pick(1, n), 0, g.choose((1, 2))
        positions = range(n)[:end:step]
        end = g.choose((end, end - n)) if end < n else end
    inputs = [x, *(g.net.ints(v) for v in (start, end, g.signed(axis, x.rank), step))]
    g.op("Slice", inputs, [*x.shape[:axis], len(positions), *x.shape[axis + 1 :]])


def gather(g, x):
    axis = g.axis(x)
    n = x.shape[axis]
    kind = g.pick(0, 3)
    if kind == 0:
        index, shape = np.array(g.pick(-n, n - 1), np.int64), ()
    elif kind == 1:
        index = g.net.rng.permutation(n).astype(np.int64)
        shape = (n,)
    else:
        k = g.pick(1, n)
        index = g.net.rng.integers(0, n, k)
        shape = (k,)
    if kind == 0 and x.rank < 3:
        raise MisfitError
    g.op(
        "Gather",
        [x, g.net.store(index)],
        [*x.shape[:axis], *shape, *x.shape[axis + 1 :]],
        axis=axis,
    )


def pad(g, x):
    axis = g.axis(x)
    mode = g.choose(("constant", "constant", "constant", "reflect", "edge"))
    before, after = g.pick(0, 2), g.pick(0, 2)
    if mode == "reflect" and max(before, after) >= x.shape[axis]:
        raise MisfitError
    pads = np.zeros((2, x.rank), np.int64)
    pads[:, axis] = before, after
    shape = list(x.shape)
    shape[axis] += before + after
    g.op("Pad", [x, g.net.store(pads.reshape(-1))], shape, mode=mode)


def pool(g, x):
    c, h, w = image(x)
    kind = g.choose(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"))
    if kind.startswith("Global"):
        g.op(kind, [x], (N, c, 1, 1))
        return
    if min(h, w) < 2:
        raise MisfitError
    g.op(kind, [x], (N, c, (h - 2) // 2 + 1, (w - 2) // 2 + 1), kernel_shape=[2, 2], strides=[2, 2])


def resize(g, x):
    c, h, w = image(x)
    mode = g.choose(("nearest", "linear"))
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    shape = (N, c, 2 * h, 2 * w)
    if g.flip():
        scales = g.net.store(np.array([1, 1, 2, 2], np.float32))
        g.op("Resize", [x, "", scales], shape, **attrs)
        return
    if g.flip():  # sizes put together from the shape, as PyTorch exports interpolate(size=…)
        head = g.net.op(
            "Slice", g.net.op("Shape", x.name), g.net.ints(0), g.net.ints(2), g.net.ints(0)
        )
        sizes = g.net.op("Concat", head, g.net.ints(2 * h, 2 * w), axis=0)
    else:
        scale = g.net.ints(1, 1, 2, 2)
        sizes = g.net.op("Mul", g.net.op("Shape", x.name), scale)
    g.op("Resize", [x, "", "", sizes], shape, **attrs)


def transpose(g, x):
    if x.rank < 3:
        raise MisfitError
    perm = [0, *g.random.sample(range(1, x.rank), x.rank - 1)]
    g.op("Transpose", [x], [x.shape[p] for p in perm], perm=perm)


def nhwc(g, x):
    """A detour through channels-last."""
    c, h, w = image(x)
    y = g.op("Transpose", [x], (N, h, w, c), perm=[0, 2, 3, 1])
    for _ in range(g.pick(1, 2)):
        g.choose((unary, with_constant, linear, layer_norm))(g, y)
        y = g.pool[-1]
    g.op("Transpose", [y], (N, y.shape[3], h, w), perm=[0, 3, 1, 2])


def unfold_axis(g, x):
    """Reshape one axis into two."""
    axis = g.axis(x, 2)
    a = g.choose(divisors(x.shape[axis]))
    shape = [*x.shape[:axis], a, x.shape[axis] // a, *x.shape[axis + 1 :]]
    reshape_to(g, x, shape)


def merge_axes(g, x):
    """Reshape two neighbouring axes into one."""
    axis = g.choose(a for a in range(x.rank - 1) if x.shape[a] != N and x.shape[a + 1] != N)
    shape = [*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]]
    reshape_to(g, x, shape)


def reshape_to(g, x, shape):
    """With a target that is stored (0, −1 or numbers) or put together from the shape of x."""
    at = shape.index(N)
    kind = g.pick(0, 2)
    if kind == 0 and at == x.shape.index(N):
        g.op("Reshape", [x, g.net.ints(*shape)], shape)  # the batch is a 0: copied
    elif kind == 1:
        g.op("Reshape", [x, g.net.ints(*(-1 if d == N else d for d in shape))], shape)
    else:
        parts = [g.net.size(x.name, x.shape.index(N)) if d == N else d for d in shape]
        for i, d in enumerate(shape):  # sizes that x has are computed from it
            if d in x.shape and d != N and g.flip():
                parts[i] = g.net.size(x.name, x.shape.index(d))
            elif d != N and d % 2 == 0 and d // 2 in x.shape and g.flip():
                half = g.net.size(x.name, x.shape.index(d // 2))
                parts[i] = g.net.op("Mul", half, g.net.ints(2))
        if g.flip():
            last = max(i for i, d in enumerate(shape) if d != N)
            parts[last] = -1
        parts = [p if isinstance(p, str) else g.net.ints(p) for p in parts]
        g.op("Reshape", [x, g.net.op("Concat", *parts, axis=0)], shape)


def shuffle(g, x):
    """Channel shuffle."""
    c, h, w = image(x)
    groups = g.choose(divisors(c))
    y = g.op(
        "Reshape", [x, g.net.ints(0, groups, c // groups, h, w)], (N, groups, c // groups, h, w)
    )
    y = g.op("Transpose", [y], (N, c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    g.op("Reshape", [y, g.net.ints(0, -1, h, w)], x.shape)


def flatten(g, x):
    if x.shape[0] != N or x.rank < 3:
        raise MisfitError
    g.op("Flatten", [x], (N, prod(x.shape[1:])), axis=1)


def gemm(g, x):
    if x.rank != 2 or x.shape[0] != N:
        raise MisfitError
    n, m = x.shape[1], g.pick(2, 10)
    g.used.add(x.name)
    name = g.net.gemm(
        x.name, n, m, bias=g.flip(), alpha=g.choose((1.0, 0.5)), beta=g.choose((1.0, 2.0))
    )
    g.add(name, (N, m))


def linear(g, x):
    if x.rank < 2 or x.shape[-1] == N:
        raise MisfitError
    m = g.pick(1, 8)
    g.op("MatMul", [x, g.net.weight(x.shape[-1], m, fan_in=x.shape[-1])], [*x.shape[:-1], m])


def linear_left(g, x):
    """A weight on the left mixes the axis before the last."""
    if x.rank < 3 or x.shape[-2] == N:
        raise MisfitError
    m = g.pick(1, 8)
    w = g.net.weight(m, x.shape[-2], fan_in=x.shape[-2])
    g.op("MatMul", [w, x], [*x.shape[:-2], m, x.shape[-1]])


def product(g, x):
    """MatMul of two activations."""
    if x.rank < 3 or N in x.shape[-2:]:
        raise MisfitError
    y = g.choose(
        t
        for t in g.pool
        if t.rank == x.rank and t.shape[:-2] == x.shape[:-2] and t.shape[-1] == x.shape[-1]
    )
    perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = g.op("Transpose", [y], [*y.shape[:-2], y.shape[-1], y.shape[-2]], perm=perm)
    y2 = g.op("MatMul", [x, turned], [*x.shape[:-1], y.shape[-2]])
    g.op("Mul", [y2, g.net.store(np.array(0.2))], y2.shape)


def reduce(g, x):
    if x.rank < 3:
        raise MisfitError
    axes = sorted({g.axis(x), g.axis(x)})
    keep = g.flip()
    shape = [1 if a in axes else d for a, d in enumerate(x.shape)]
    if not keep:
        shape = [d for a, d in enumerate(x.shape) if a not in axes]
    kind = g.choose(("ReduceMean", "ReduceMax", "ReduceL2"))
    if g.net.opset >= 18:
        g.op(kind, [x, g.net.ints(*axes)], shape, keepdims=int(keep))
    else:
        g.op(kind, [x], shape, axes=axes, keepdims=int(keep))


def softmax(g, x):
    axis = g.axis(x)
    g.op("Softmax", [x], x.shape, axis=g.signed(axis, x.rank))


def unsqueeze(g, x):
    axis = g.pick(1, x.rank)
    y = g.op("Unsqueeze", [x, g.net.ints(axis)], [*x.shape[:axis], 1, *x.shape[axis:]])
    if g.flip():
        shape = list(y.shape)
        shape[axis] = g.pick(2, 3)
        target = [1 if d == N else d for d in shape]
        g.op("Expand", [y, g.net.ints(*target)], shape)


def squeeze(g, x):
    axis = g.choose(a for a in range(1, x.rank) if x.shape[a] == 1 and x.rank > 2)
    g.op("Squeeze", [x, g.net.ints(axis)], [*x.shape[:axis], *x.shape[axis + 1 :]])


def tile(g, x):
    axis = g.axis(x)
    repeats = [2 if a == axis else 1 for a in range(x.rank)]
    shape = [d * r for d, r in zip(x.shape, repeats, strict=True)]
    g.op("Tile", [x, g.net.ints(*repeats)], shape)


def depth_to_space(g, x):
    c, h, w = image(x)
    if c % 4:
        raise MisfitError
    mode = g.choose(("DCR", "CRD"))
    g.op("DepthToSpace", [x], (N, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)


def space_to_depth(g, x):
    c, h, w = image(x)
    if h % 2 or w % 2:
        raise MisfitError
    g.op("SpaceToDepth", [x], (N, 4 * c, h // 2, w // 2), blocksize=2)


def squeeze_excite(g, x):
    c, _h, _w = image(x)
    m = g.pick(1, 4)
    y = g.op("GlobalAveragePool", [x], (N, c, 1, 1))
    y = g.add(g.net.relu(g.net.conv(y.name, c, m, 1)), (N, m, 1, 1))
    y = g.add(g.net.op("Sigmoid", g.net.conv(y.name, m, c, 1)), (N, c, 1, 1))
    g.used.update(t.name for t in g.pool[-3:])
    g.op("Mul", [x, y], x.shape)


def residual(g, x):
    """x + f(x)."""
    c, _h, _w = image(x)
    m = g.choose((2, 4, c))
    y = g.net.conv_bn_relu(x.name, c, m)
    y = g.add(g.net.conv(y, m, c, 3, bias=g.flip()), x.shape)
    g.op("Add", [x, y], x.shape)


def widen(g, x):
    """Concat with zeros: stored, or made to the shape of x."""
    axis = g.axis(x)
    if g.flip() and g.batch != "N":
        zeros = g.net.store(np.zeros([g.batch if d == N else d for d in x.shape]))
    elif g.flip():
        zeros = g.net.op("ConstantOfShape", g.net.op("Shape", x.name))
    else:
        constant = g.net.vector(*(1 if d == N or g.flip() else d for d in x.shape))
        zeros = g.net.op("Expand", constant, g.net.op("Shape", x.name))
    shape = [*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]]
    g.op("Concat", [x, zeros] if g.flip() else [zeros, x], shape, axis=axis)


def fill(g, x):
    """Add or select a constant made to the shape of x."""
    made = g.net.op("ConstantOfShape", g.net.op("Shape", x.name))
    if g.flip():
        g.op("Add", [x, made], x.shape)
    else:
        mask = g.net.op("Greater", x.name, g.net.store(np.array(0.0)))
        g.op("Where", [mask, x, made], x.shape)


def gather_table(g, x):
    """Gather with a table of indices: one axis becomes two."""
    axis = g.axis(x, 2)
    rows, columns = g.pick(1, 3), g.pick(1, 3)
    table = g.net.store(g.net.rng.integers(0, x.shape[axis], (rows, columns)))
    shape = [*x.shape[:axis], rows, columns, *x.shape[axis + 1 :]]
    g.op("Gather", [x, table], shape, axis=axis)


def last_of(g, x):
    """Gather the last position, its index computed from the shape."""
    axis = g.axis(x, 2)
    last = g.net.op("Sub", g.net.size(x.name, axis), g.net.ints(1))
    g.op("Gather", [x, last], [*x.shape[:axis], 1, *x.shape[axis + 1 :]], axis=axis)


def twice(g, x):
    """One Conv weight on two tensors."""
    c, _h, _w = image(x)
    y = g.choose(t for t in g.pool if t.rank == 4 and t.shape[:2] == x.shape[:2])
    m = g.pick(2, 6)
    weight, bias = g.net.weight(m, c, 1, 1, fan_in=c), g.net.vector(m)
    for t in (x, y):
        g.op("Conv", [t, weight, bias], (N, m, *t.shape[2:]), kernel_shape=[1, 1])


def indirect(g, x):
    """A Conv whose weight and bias come through other nodes."""
    c, h, w = image(x)
    m = g.pick(2, 6)
    weight = g.net.op("Transpose", g.net.weight(c, m, 1, 1, fan_in=c), perm=[1, 0, 2, 3])
    if g.flip():
        weight = g.net.op("Mul", weight, g.net.vector(m, 1, 1, 1, low=0.5, high=1.5))
    bias = g.net.op("Identity", g.net.vector(m))
    g.op("Conv", [x, weight, bias], (N, m, h, w), kernel_shape=[1, 1])


def quantized(g, x):
    """QuantizeLinear and DequantizeLinear, per tensor or per channel."""
    if x.rank < 2 or x.shape[1] == N:
        raise MisfitError
    n = x.shape[1]
    per_channel = g.flip()
    scale = g.net.store(np.full(n, 0.05) if per_channel else np.array(0.05))
    zero = g.net.store(np.zeros(n if per_channel else (), np.int8))
    y = g.op("QuantizeLinear", [x, scale, zero], x.shape, axis=1)
    g.pool.remove(y)
    g.op("DequantizeLinear", [y, scale, zero], x.shape, axis=1)


def scale_by_width(g, x):
    """Divide by the square root of a channel count that is computed in the graph."""
    size = g.net.op("Cast", g.net.size(x.name, g.axis(x)), to=1)
    g.op("Div", [x, g.net.op("Sqrt", size)], x.shape)


def stranger(g, x):
    """Operators that lock what they touch."""
    kind = g.pick(0, 2)
    axis = g.axis(x)
    if kind == 0:
        g.op("CumSum", [x, g.net.store(np.array(axis, np.int64))], x.shape)
    elif kind == 1:
        k = g.pick(1, x.shape[axis])
        values, _ = g.net.op("TopK", x.name, g.net.ints(k), outputs=2, axis=axis)
        g.used.add(x.name)
        g.add(values, [*x.shape[:axis], k, *x.shape[axis + 1 :]])
    else:
        image(x)
        g.op("LRN", [x], x.shape, size=3)


RULES = [
    conv, plain_conv, plain_conv, plain_conv, depthwise, deconv, batch_norm, unary, clip, prelu,
    instance_norm, group_norm, layer_norm, binary, binary, broadcast, with_constant, where, concat,
    concat, split, halves, slice_, gather, pad, pool, resize, transpose, nhwc, unfold_axis,
    merge_axes, shuffle, flatten, gemm, linear, linear_left, product, reduce, softmax, unsqueeze,
    squeeze, widen, fill, gather_table, last_of, twice, indirect, quantized, scale_by_width,
    stranger, tile, depth_to_space, space_to_depth, squeeze_excite, residual,
]  # fmt: skip


def random_model(random, most=15):
    """A random model of up to `most` drawn operators."""
    g = Grower(random)
    plain_conv(g, g.pool[0])
    for _ in range(g.pick(2, most)):
        g.step()
    return g.finish()
