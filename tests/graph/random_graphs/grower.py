"""What grows a random graph: choices, tensors with their shapes, heads for loose ends."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from tests.graph.random_graphs.sizes import BATCH, HEIGHT, WIDTH, Size, first, known
from tests.net import Net

LARGEST = 4096


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple

    @property
    def rank(self):
        return len(self.shape)


class MisfitError(Exception):
    """The operator does not fit this tensor; another one is drawn."""


class Grower:
    """Grows one graph with the choices of a random generator (hypothesis has one that shrinks)."""

    def __init__(self, random):
        self.random = random
        self.dtype = self.choose(
            [np.float32] * 12 + [np.float16, np.float16, np.float64, ml_dtypes.bfloat16]
        )
        fixed_batch = self.pick(0, 2) == 0
        self.batch = 2 if fixed_batch else "N"
        self.n = Size(2, 2, 2, 2, 2) if fixed_batch else BATCH
        dynamic = self.pick(0, 4) == 0
        opset = 22 if self.bfloat else self.choose((13, 17, 18, 21))
        ir = 10 if opset > 18 else self.choose((8, 8, 8, 8, 3))
        self.net = Net(opset=opset, ir=ir, seed=self.pick(0, 9))
        self.pool: list[Tensor] = []
        self.used: set[str] = set()
        for i in range(self.choose((1, 1, 1, 2))):
            c = self.pick(1, 3)
            if dynamic:
                shape, declared = (c, HEIGHT, WIDTH), (c, "H", "W")
            else:
                size = self.pick(4, 8)
                shape = declared = (c, size, size)
            name = self.net.input(f"x{i}", self.batch, *declared)
            if self.dtype is not np.float32:
                name = self.net.op("Cast", name, to=self.elem)
            self.add(name, (self.n, *shape))
        self.net.dtype = np.dtype(self.dtype)

    @property
    def bfloat(self):
        return self.dtype is ml_dtypes.bfloat16

    @property
    def single(self):
        return self.dtype is np.float32

    @property
    def elem(self):
        return helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))

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

    def need(self, condition):
        if not condition:
            raise MisfitError

    # Growing.

    def add(self, name, shape):
        self.need(prod(first(d) for d in shape) <= LARGEST)
        t = Tensor(name, tuple(shape))
        self.pool.append(t)
        return t

    def op(self, op_type, inputs, shape, **attrs):
        names = [t.name if isinstance(t, Tensor) else t for t in inputs]
        self.used.update(names)
        return self.add(self.net.op(op_type, *names, **attrs), shape)

    def hidden(self, t):
        """A tensor that only the idiom at hand may read."""
        self.pool.remove(t)
        return t

    def step(self, rules):
        """Add one random operator (or a small idiom of several)."""
        net = self.net
        saved = len(net.nodes), len(self.pool), set(self.used), len(net.functions)
        pool, declared = list(self.pool), len(net.declared)
        x = self.choose(self.pool[-4:])
        rule = self.choose(rules)
        try:
            rule(self, x)
        except MisfitError:
            del net.nodes[saved[0] :], net.functions[saved[3] :], net.declared[declared:]
            self.pool = pool
            self.used = saved[2]

    def image(self, x):
        """C, H, W of a tensor that is laid out as N, C, H, W."""
        self.need(x.rank == 4 and x.shape[0] == self.n and known(x.shape[1]))
        return x.shape[1:]

    def same_shape(self, x):
        return self.choose(t for t in self.pool if t.shape == x.shape and t is not x)

    def axis(self, x, least=1):
        """A random axis of a known size of at least `least` positions."""
        return self.choose(a for a in range(x.rank) if known(x.shape[a]) and x.shape[a] >= least)

    def signed(self, axis, rank):
        return axis - rank if self.flip() else axis

    def number(self, value):
        return self.net.store(np.array(float(value)))

    def reduce(self, kind, x, axes, keep=True):
        shape = [1 if a in axes else d for a, d in enumerate(x.shape)]
        if not keep:
            shape = [d for a, d in enumerate(x.shape) if a not in axes]
        least = 13 if kind == "ReduceSum" else 18
        if self.net.opset >= least:
            return self.op(kind, [x, self.net.ints(*axes)], shape, keepdims=int(keep))
        return self.op(kind, [x], shape, axes=list(axes), keepdims=int(keep))

    def reshape(self, x, shape):
        """Reshape to a target that is stored (0, −1, numbers) or put together from shapes."""
        if self.flip():
            target = self._stored_target(x, shape)
            if target is not None:
                return self.op("Reshape", [x, self.net.ints(*target)], shape)
        return self.op("Reshape", [x, self._computed_target(x, shape)], shape)

    def _stored_target(self, x, shape):
        target, rest = list(shape), False
        for i, d in enumerate(shape):
            same = i < x.rank and x.shape[i] == d
            if known(d) and not (same and self.pick(0, 3) == 0):
                continue
            if same and (rest or known(d) or self.flip()):
                target[i] = 0
            elif not rest and not known(d):
                target[i], rest = -1, True
            elif not known(d):
                return None
        if not rest and self.flip():
            target[self.choose(range(len(shape)))] = -1
        return target

    def _computed_target(self, x, shape):
        net, parts, rest = self.net, [], False
        for d in shape:
            part = self._computed(x, d)
            if part is None and known(d):
                part = net.ints(d)
            if part is None:
                self.need(not rest)
                part, rest = net.ints(-1), True
            parts.append(part)
        if not rest and self.flip():
            parts[self.choose(range(len(shape)))] = net.ints(-1)
        return net.op("Concat", *parts, axis=0)

    def _computed(self, x, d):
        """A size worked out in the graph from those of x, where that is possible."""
        net = self.net
        if known(d) and self.flip():
            return None
        for a, n in enumerate(x.shape):
            if n == d:
                return net.size(x.name, a)
        for a, n in enumerate(x.shape):
            for k in (2, 3, 4):
                if n * k == d:
                    return net.op("Mul", net.size(x.name, a), net.ints(k))
                if n % k == 0 and n // k == d:
                    return net.op("Div", net.size(x.name, a), net.ints(k))
        for a in range(x.rank):
            for b in range(a + 1, x.rank):
                if x.shape[a] * x.shape[b] == d:
                    return net.op("Mul", net.size(x.name, a), net.size(x.name, b))
        return None

    # The end.

    def finish(self):
        """Give every loose end a head, or make it an output; sometimes show a hidden tensor."""
        outputs = {}
        for t in [t for t in self.pool if t.name not in self.used]:
            if self.pick(0, 7) > 0:
                t = self.head(t)
            outputs[t.name] = t.shape
        if self.pick(0, 7) == 0:
            t = self.choose(self.pool)
            outputs[t.name] = t.shape
        types = {}
        if self.dtype is not np.float32:
            outputs = {
                self.net.op("Cast", name, to=TensorProto.FLOAT): shape
                for name, shape in outputs.items()
            }
            types = dict.fromkeys(outputs, TensorProto.FLOAT)
        shapes = {
            name: [self.declared(d, f"{name}_{a}") for a, d in enumerate(shape)]
            for name, shape in outputs.items()
        }
        return self.net.model(*outputs, shapes=shapes, types=types)

    def declared(self, d, name):
        if known(d):
            return d
        if d == self.n:
            return self.batch
        return d.values[0] if len(set(d.values)) == 1 and self.batch == 2 else name

    def head(self, t):
        if t.rank == 4 and t.shape[0] == self.n and known(t.shape[1]) and self.flip():
            k = 3 if t.shape[2] >= 3 and t.shape[3] >= 3 and self.flip() else 1
            self.used.add(t.name)
            return Tensor(self.net.conv(t.name, t.shape[1], 2, k), (self.n, 2, *t.shape[2:]))
        loose = [a for a, d in enumerate(t.shape) if not known(d)]
        for a in loose[1:]:
            t = self.reduce("ReduceMean", t, [a])
        rows = t.shape[loose[0]] if loose else 1
        n = prod(d for d in t.shape if known(d))
        y = self.net.reshape(t.name, -1, n)
        return Tensor(self.net.gemm(y, n, 3), (rows, 3))


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]
