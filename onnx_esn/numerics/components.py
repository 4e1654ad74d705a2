"""Connected components of a graph, in numpy: scipy's take longer to import than to compute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def components(n: int, a: Integers, b: Integers) -> tuple[int, Integers]:
    """How many components the graph of n nodes with edges a[i] – b[i] has, and each node's.

    They are numbered by their smallest nodes. Each round hooks the root of either end of an edge
    onto the smaller root, then halves all paths: about log n rounds.
    """
    root = np.arange(n, dtype=np.int64)
    while a.size:
        at, to = root[a], root[b]
        apart = at != to
        # Edges within a tree are done with.
        a, b, at, to = a[apart], b[apart], at[apart], to[apart]
        np.minimum.at(root, np.maximum(at, to), np.minimum(at, to))
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    smallest, component = np.unique(root, return_inverse=True)
    return smallest.size, component.astype(np.int64)
