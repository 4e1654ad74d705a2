"""What channels are worth together: I_l[j, i] = s_j·Σ_kernel |W_l[j, i]|, ‖I_l‖_F = 1 per layer.

s_j = 1 where BatchNormalization follows the layer: its scale γ/σ would take the very thing out that
is to be measured, since σ grows with the weights. Where it was folded, that has happened: then
images give the scale back, s_j = σ_j/Σ|W_j| with σ_j the standard deviation of the output. Filters
and inputs of one class are added up; what stays for sure goes into what is worth something by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask
from onnx_esn.graph.channels.propagation import Claim
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.qcqp.instance import Block, Floats, Integers, block

_AT_ONCE = 1 << 22  # weights


@dataclass(frozen=True, eq=False)
class Importance:
    """What the classes that may go are worth.

    Attributes:
        linear: by itself (n,), with what stays for sure.
        blocks: in pairs.
        constant: of what stays for sure.
        read: whether something that stays for sure reads the class (n,).
        fed: whether the class makes something of what stays for sure (n,).
    """

    linear: Floats
    blocks: list[Block]
    constant: float
    read: Mask
    fed: Mask

    def inactive(self, x: Mask) -> Mask:
        """Whether nothing in a choice x (n,) reads a class, or it reads nothing, (n,)."""
        kept = np.asarray(x, np.float64)
        read, fed = self.read.astype(np.float64), self.fed.astype(np.float64)
        for b in self.blocks:
            fed[b.rows] += b.worth @ kept[b.cols]
            read[b.cols] += kept[b.rows] @ b.worth
        return np.asarray((read == 0) | (fed == 0))


def find_importance(
    analysis: Analysis,
    place: Integers,
    size: int,
    variances: Mapping[str, Floats] | None = None,
) -> Importance:
    """Add up all layers.

    Args:
        analysis: the labelled model.
        place: by label, the number of its class among those that may go, or −1.
        size: how many may go.
        variances: measured variance (M,) of layers' outputs that no BatchNormalization follows, by
            output.
    """
    linear, constant, blocks = np.zeros(size), 0.0, []
    made, passed = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    fed, read = np.zeros(size, np.bool_), _read_elsewhere(analysis, place, size)
    first = analysis.first_labels
    claims = {(c.node, c.slot): c for c in analysis.propagation.claims if c.role == "input"}
    for layer in analysis.layers:
        if layer.index not in first:
            continue
        rows = place[first[layer.index] + np.arange(layer.filters)]
        claim = claims.get((layer.index, layer.slot))
        own = layer.index in analysis.propagation.groups
        cols = np.full(1, -1) if own or claim is None else place[_columns(layer, claim)]
        measured = (variances or {}).get(layer.output)
        ids, outs, worth = _summed(analysis, layer, measured, rows, cols)
        i, j = ids >= 0, outs >= 0
        constant += float(worth[np.ix_(~i, ~j)].sum())
        alone = worth[np.ix_(i, ~j)].sum(axis=1)
        linear[ids[i]] += alone
        outside = worth[np.ix_(~i, j)].sum(axis=0)
        linear[outs[j]] += outside
        read[outs[j]] |= outside > 0
        if own:
            passed[ids[i]] = True
            continue
        made[ids[i]] = True
        fed[ids[i]] |= alone > 0
        found, both, same = block(ids[i], outs[j], worth[np.ix_(i, j)])
        linear[both] += same
        if found.worth.size:
            blocks.append(found)
    # A depthwise layer hands on; where nothing else makes the class, it does.
    fed |= passed & ~made
    return Importance(linear, blocks, constant, read, fed)


def _columns(layer: Layer, claim: Claim) -> Labels:
    """The label of each of the K weights of a filter."""
    whole = np.broadcast_to(claim.labels, layer.weight_shape)
    return np.asarray(layer.as_filters(whole)[0], np.int64)


def _summed(
    analysis: Analysis, layer: Layer, variance: Floats | None, rows: Integers, cols: Integers
) -> tuple[Integers, Integers, Floats]:
    """Classes of the rows and of the columns, and the sums of s·|W| over them, ‖s·|W|‖_F = 1."""
    from scipy.sparse import csr_array

    W = layer.as_filters(analysis.constants.value(layer.weight))
    if cols.size == 1:
        cols = np.full(W.shape[1], cols[0])
    ids, i = np.unique(rows, return_inverse=True)
    outs, j = np.unique(cols, return_inverse=True)
    onto = csr_array((np.ones(j.size), (np.arange(j.size), j)), (j.size, outs.size))
    taps = int(np.prod(layer.kernel, dtype=np.int64))
    worth, norm = np.zeros((ids.size, outs.size)), 0.0
    step = max(1, _AT_ONCE // max(W.shape[1], 1))
    for at in range(0, len(W), step):
        part = np.abs(W[at : at + step].astype(np.float64))
        if variance is not None:
            sums = part.sum(axis=1)
            scale = np.sqrt(variance[at : at + step])
            part *= np.divide(scale, sums, out=np.zeros_like(sums), where=sums > 0)[:, None]
        norm += float((part.reshape(len(part), -1, taps).sum(axis=2) ** 2).sum())
        np.add.at(worth, i[at : at + step], np.asarray(part @ onto))
    usable = np.isfinite(norm) and norm > 0
    return ids, outs, worth / np.sqrt(norm) if usable else np.zeros_like(worth)


def _read_elsewhere(analysis: Analysis, place: Integers, size: int) -> Mask:
    """Whether a product of activations, or weights of another operator, read a class (n,)."""
    p = analysis.propagation
    layers = {(x.index, x.slot) for x in analysis.layers if x.index in analysis.first_labels}
    reads: Sequence[Labels] = [x.labels for x in p.products]
    reads = [
        *reads,
        *(c.labels for c in p.claims if c.role == "input" and (c.node, c.slot) not in layers),
    ]
    found = np.zeros(size + 1, np.bool_)
    for labels in reads:
        found[place[labels]] = True
    return found[:size]
