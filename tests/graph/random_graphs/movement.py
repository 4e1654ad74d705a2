"""Operators that only move data: joins, cuts, picks, layouts."""

from __future__ import annotations

import numpy as np

from tests.graph.random_graphs.grower import divisors
from tests.graph.random_graphs.sizes import known


def replaced(shape, axis, *sizes):
    return [*shape[:axis], *sizes, *shape[axis + 1 :]]


def concat(g, x):
    axis = g.axis(x)
    rest = [a for a in range(x.rank) if a != axis]
    others = [
        t
        for t in g.pool
        if t.rank == x.rank and known(t.shape[axis]) and all(t.shape[a] == x.shape[a] for a in rest)
    ]
    parts = [x, *(g.choose(others) for _ in range(g.pick(1, 2)))]
    total = sum(t.shape[axis] for t in parts)
    g.op("Concat", parts, replaced(x.shape, axis, total), axis=g.signed(axis, x.rank))


def split(g, x):
    axis = g.axis(x, 2)
    n = x.shape[axis]
    if g.flip() and n % 2 == 0:
        sizes = [n // 2] * 2
    elif g.flip():
        k = g.choose(divisors(n)[1:])
        g.need(k <= 6)
        sizes = [n // k] * k
    else:
        cut = g.pick(1, n - 1)
        sizes = [cut, n - cut]
    inputs = [x.name]
    if len(set(sizes)) > 1 or g.net.opset >= 18 or g.flip():
        inputs.append(g.net.ints(*sizes))
    names = g.net.op("Split", *inputs, outputs=len(sizes), axis=g.signed(axis, x.rank))
    g.used.add(x.name)
    for name, size in zip(names, sizes, strict=True):
        g.add(name, replaced(x.shape, axis, size))


def halves(g, x):
    """Chunk, its bounds computed in the graph: Shape → Gather → Div → Slice."""
    axis = g.axis(x, 2)
    n = x.shape[axis]
    size = g.net.size(x.name, axis)
    half = g.net.op("Div", size, g.net.ints(2))
    zero, at = g.net.ints(0), g.net.ints(axis)
    for start, end, left in ((zero, half, n // 2), (half, size, n - n // 2)):
        g.op("Slice", [x, start, end, at], replaced(x.shape, axis, left))


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
    g.op("Slice", inputs, replaced(x.shape, axis, len(positions)))


def gather(g, x):
    axis = g.axis(x)
    n = x.shape[axis]
    kind = g.pick(0, 3)
    if kind == 0:
        g.need(x.rank >= 3)
        index, shape = np.array(g.pick(-n, n - 1), np.int64), ()
    elif kind == 1:
        index, shape = g.net.rng.permutation(n).astype(np.int64), (n,)
    else:
        k = g.pick(1, n)
        index, shape = g.net.rng.integers(0, n, k), (k,)
    g.op("Gather", [x, g.net.raw(index)], replaced(x.shape, axis, *shape), axis=axis)


def gather_table(g, x):
    """Gather with a table of indices: one axis becomes two."""
    axis = g.axis(x, 2)
    rows, columns = g.pick(1, 3), g.pick(1, 3)
    table = g.net.raw(g.net.rng.integers(0, x.shape[axis], (rows, columns)))
    g.op("Gather", [x, table], replaced(x.shape, axis, rows, columns), axis=axis)


def last_of(g, x):
    """Gather the last position, its index computed from the shape."""
    axis = g.axis(x, 2)
    last = g.net.op("Sub", g.net.size(x.name, axis), g.net.ints(1))
    g.op("Gather", [x, last], replaced(x.shape, axis, 1), axis=axis)


def gather_nd(g, x):
    """Positions picked along the first axes, or after the batch."""
    batch = x.shape[0] == g.n and g.batch == 2 and g.flip()
    lead = 1 if batch else 0
    depth = 0
    while lead + depth < x.rank - 1 and depth < 2 and known(x.shape[lead + depth]):
        depth += 1
    g.need(depth)
    depth = g.pick(1, depth)
    k = g.pick(1, 6)
    columns = [g.net.rng.integers(0, x.shape[lead + d], k) for d in range(depth)]
    table = np.stack(columns, -1)
    if batch:
        table = np.stack([table, table[::-1] if g.flip() else table])
    shape = [*x.shape[:lead], k, *x.shape[lead + depth :]]
    g.op("GatherND", [x, g.net.raw(np.ascontiguousarray(table))], shape, batch_dims=lead)


def pad(g, x):
    axis = g.axis(x)
    mode = g.choose(("constant", "constant", "constant", "reflect", "edge"))
    before, after = g.pick(0, 2), g.pick(0, 2)
    g.need(mode != "reflect" or max(before, after) < x.shape[axis])
    pads = np.zeros((2, x.rank), np.int64)
    pads[:, axis] = before, after
    inputs = [x, g.net.raw(pads.reshape(-1))]
    if mode == "constant" and g.flip():
        inputs.append(g.number(g.choose((0, 0.5))))
    g.op("Pad", inputs, replaced(x.shape, axis, x.shape[axis] + before + after), mode=mode)


def transpose(g, x):
    g.need(x.rank >= 3)
    perm = [0, *g.random.sample(range(1, x.rank), x.rank - 1)]
    if g.pick(0, 4) == 0:
        perm = g.random.sample(range(x.rank), x.rank)
    g.op("Transpose", [x], [x.shape[p] for p in perm], perm=perm)


def unfold_axis(g, x):
    """Reshape one axis into two."""
    axis = g.axis(x, 2)
    a = g.choose(divisors(x.shape[axis]))
    g.reshape(x, replaced(x.shape, axis, a, x.shape[axis] // a))


def merge_axes(g, x):
    """Reshape two neighbouring axes into one, the batch perhaps among them."""
    axis = g.choose(range(x.rank - 1))
    g.need(x.rank > 2)
    g.need(axis > 0 or g.pick(0, 3) == 0)
    g.reshape(x, [*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]])


def shuffle(g, x):
    """Channel shuffle, in either idiom: five axes, or three."""
    c, h, w = g.image(x)
    groups = g.choose(divisors(c))
    if g.flip():
        y = g.reshape(x, (g.n, groups, c // groups, h, w))
        y = g.op("Transpose", [y], (g.n, c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    else:
        y = g.reshape(x, (g.n, groups, c // groups, h * w))
        y = g.op("Transpose", [y], (g.n, c // groups, groups, h * w), perm=[0, 2, 1, 3])
    if g.flip():
        g.op("Reshape", [y, g.net.op("Shape", x.name)], x.shape)
    else:
        g.reshape(y, x.shape)


def flatten(g, x):
    g.need(x.shape[0] == g.n and x.rank >= 3 and all(known(d) for d in x.shape[1:]))
    n = int(np.prod(x.shape[1:]))
    if g.flip():
        g.op("Flatten", [x], (g.n, n), axis=1)
    else:
        g.reshape(x, (g.n, n))


def unsqueeze(g, x):
    axis = g.pick(1, x.rank)
    y = g.op("Unsqueeze", [x, g.net.ints(axis)], [*x.shape[:axis], 1, *x.shape[axis:]])
    if g.flip():
        shape = list(y.shape)
        shape[axis] = g.pick(2, 3)
        target = [d if known(d) else 1 for d in shape]
        g.op("Expand", [y, g.net.ints(*target)], shape)


def squeeze(g, x):
    axis = g.choose(a for a in range(1, x.rank) if x.shape[a] == 1 and x.rank > 2)
    g.op("Squeeze", [x, g.net.ints(axis)], replaced(x.shape, axis))


def tile(g, x):
    axis = g.axis(x)
    repeats = [2 if a == axis else 1 for a in range(x.rank)]
    g.op("Tile", [x, g.net.ints(*repeats)], replaced(x.shape, axis, 2 * x.shape[axis]))


def depth_to_space(g, x):
    c, h, w = g.image(x)
    g.need(c % 4 == 0)
    shape = (g.n, c // 4, 2 * h, 2 * w)
    if g.flip():
        mode = g.choose(("DCR", "CRD"))
        g.op("DepthToSpace", [x], shape, blocksize=2, mode=mode)
        return
    y = g.reshape(x, (g.n, c // 4, 2, 2, h, w))
    y = g.op("Transpose", [y], (g.n, c // 4, h, 2, w, 2), perm=[0, 1, 4, 2, 5, 3])
    g.reshape(y, shape)


def space_to_depth(g, x):
    c, h, w = g.image(x)
    g.need(h % 2 == 0 and w % 2 == 0)
    shape = (g.n, 4 * c, h // 2, w // 2)
    if g.flip():
        g.op("SpaceToDepth", [x], shape, blocksize=2)
        return
    ends, axes, steps = g.net.ints(2**31, 2**31), g.net.ints(2, 3), g.net.ints(2, 2)
    parts = [
        g.hidden(g.op("Slice", [x, g.net.ints(i, j), ends, axes, steps], (g.n, c, *shape[2:])))
        for i in range(2)
        for j in range(2)
    ]
    g.op("Concat", parts, shape, axis=1)


def widen(g, x):
    """Concat with zeros: stored, or made to the shape of x."""
    axis = g.axis(x)
    if g.flip() and all(known(d) or d == g.n for d in x.shape) and g.batch == 2:
        zeros = g.net.store(np.zeros([d if known(d) else 2 for d in x.shape]))
    elif g.flip() and g.single:
        zeros = g.net.op("ConstantOfShape", g.net.op("Shape", x.name))
    else:
        constant = g.net.vector(*(d if known(d) and g.flip() else 1 for d in x.shape))
        zeros = g.net.op("Expand", constant, g.net.op("Shape", x.name))
    shape = replaced(x.shape, axis, 2 * x.shape[axis])
    g.op("Concat", [x, zeros] if g.flip() else [zeros, x], shape, axis=axis)
