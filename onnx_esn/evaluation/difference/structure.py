"""Pairs nodes that read the same things: for models whose names say nothing.

From the graph inputs on: two nodes belong together if they have the same operator and read tensors
that belong together, through what a layer before can take over (BatchNormalization, Quantize- and
DequantizeLinear, Identity, Cast). Where several nodes do so, their constants, attributes and shapes
decide; what these leave open stays unpaired, for a guess would be no comparison. From there back:
what makes the sizes and constants that paired nodes read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from .wiring import COMMUTATIVE, Place, Wiring

Groups = dict[Place, list[int]]


def pair_by_structure(a: Wiring, b: Wiring, known: Mapping[int, int]) -> dict[int, int]:
    """Pairs (index in a: index in b) that follow from the inputs and from what is known.

    Args:
        a, b: the models.
        known: pairs that are settled; the result has them too.
    """
    pairs, tensors = dict(known), match_inputs(a, b)
    for i, j in known.items():
        _follow(a, b, i, j, tensors)
    groups = _groups(a), _groups(b)
    before = -1
    while len(pairs) > before:  # sources may settle what else is made of them
        before = len(pairs)
        _pair_readers(a, b, groups, pairs, tensors)
        _pair_sources(a, b, pairs, tensors)
    return pairs


def _pair_readers(
    a: Wiring,
    b: Wiring,
    groups: tuple[Groups, Groups],
    pairs: dict[int, int],
    tensors: dict[str, str],
) -> None:
    """Forwards: nodes that read tensors that belong together."""
    taken = set(pairs.values())
    done: set[Place] = set()
    for i in range(len(a.nodes)):
        here = a.place(i)
        if i in pairs or here is None or here in done:
            continue
        there = _translated(here, tensors)
        if there is None:
            continue
        done.add(here)
        mine = [k for k in groups[0][here] if k not in pairs]
        theirs = [k for k in groups[1].get(there, ()) if k not in taken]
        for x, y in _settle(a, b, mine, theirs):
            pairs[x] = y
            taken.add(y)
            _follow(a, b, x, y, tensors)


def _pair_sources(a: Wiring, b: Wiring, pairs: dict[int, int], tensors: dict[str, str]) -> None:
    """Backwards: nodes of the same operator that make what the nodes of a pair read."""
    taken = set(pairs.values())
    waiting = list(pairs.items())
    while waiting:
        i, j = waiting.pop()
        for x, y in zip(a.nodes[i].input, b.nodes[j].input, strict=False):
            p, q = a.made.get(x), b.made.get(y)
            if p is None or q is None or p in pairs or q in taken:
                continue
            fixed = x in a.constants and y in b.constants
            if a.nodes[i].op_type in COMMUTATIVE and not fixed:
                continue  # their places say nothing
            if (a.nodes[p].domain, a.nodes[p].op_type) != (b.nodes[q].domain, b.nodes[q].op_type):
                continue
            pairs[p] = q
            taken.add(q)
            _follow(a, b, p, q, tensors)
            waiting.append((p, q))


def match_inputs(a: Wiring, b: Wiring) -> dict[str, str]:
    """Graph inputs that belong together: by name, the others by position if as many are left."""
    pairs = {name: name for name in a.inputs if name in b.inputs}
    mine = [name for name in a.inputs if name not in pairs]
    theirs = [name for name in b.inputs if name not in pairs]
    if len(mine) == len(theirs):
        pairs.update(zip(mine, theirs, strict=True))
    return pairs


def _groups(wiring: Wiring) -> Groups:
    found: dict[Place, list[int]] = defaultdict(list)
    for index in range(len(wiring.nodes)):
        key = wiring.place(index)
        if key is not None:
            found[key].append(index)
    return found


def _translated(place: Place, tensors: Mapping[str, str]) -> Place | None:
    """The place in the second model; None where it is not known what stands for a tensor."""
    if not all(name in tensors for _, name in place.read):
        return None
    read = sorted((slot, tensors[name]) for slot, name in place.read)
    return place._replace(read=tuple(read))


def _follow(a: Wiring, b: Wiring, i: int, j: int, tensors: dict[str, str]) -> None:
    """Outputs of a pair belong together, as far as nothing else is known of them."""
    for mine, theirs in zip(a.nodes[i].output, b.nodes[j].output, strict=False):
        if mine and theirs:
            tensors.setdefault(a.root(mine), b.root(theirs))


def _settle(
    a: Wiring, b: Wiring, mine: Sequence[int], theirs: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs among nodes that read the same, by what sets them apart, the surest sign first."""
    left, right = list(mine), list(theirs)
    found: list[tuple[int, int]] = []
    signs = () if len(left) == len(right) == 1 else _SIGNS
    for sign in (*signs, _only):
        first, second = _by(sign, a, left), _by(sign, b, right)
        for key, indices in first.items():
            others = second.get(key, [])
            # Of nodes that are the same in everything, either stands for the other.
            if len(indices) == len(others) and (len(indices) == 1 or sign is _identity):
                found += zip(indices, others, strict=True)
        left = [k for k in left if k not in {x for x, _ in found}]
        right = [k for k in right if k not in {y for _, y in found}]
    return found


def _by(
    sign: Callable[[Wiring, int], Hashable], wiring: Wiring, indices: Sequence[int]
) -> dict[Hashable, list[int]]:
    result: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        result[sign(wiring, index)].append(index)
    return result


def _identity(wiring: Wiring, index: int) -> Hashable:
    return wiring.identity(index)


def _shapes(wiring: Wiring, index: int) -> Hashable:
    shapes = [wiring.shape(name) for name in wiring.nodes[index].input]
    return next((shape for shape in shapes if shape is not None), ())


def _attributes(wiring: Wiring, index: int) -> Hashable:
    return repr(sorted(wiring.settings(index).items()))


def _both(wiring: Wiring, index: int) -> Hashable:
    return _shapes(wiring, index), _attributes(wiring, index)


def _only(wiring: Wiring, index: int) -> Hashable:
    return ()


_SIGNS = (_identity, _both, _shapes, _attributes)
