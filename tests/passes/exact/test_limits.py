"""What `exact` keeps although it is redundant: widths, layers that the user names."""

from __future__ import annotations

import random

import numpy as np
import pytest

from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.exact.choice import choose_redundant
from onnx_esn.passes.exact.readers import find_readers
from onnx_esn.passes.exact.redundant import RemoveRedundant
from onnx_esn.passes.exact.rules import RULES
from onnx_esn.passes.exact.walk import number_values
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.report.summaries import summary
from tests.graph.random_graphs import random_model
from tests.net import Net
from tests.passes.exact.planting import change, plant, silence
from tests.passes.exact.test_exact import check, mute, twin_all
from tests.passes.pruning.test_steering import reasons, widths


def chain():
    """Of a, 3 filters are dead and 2 duplicates; of b, 2 are unread."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 16, name="a"))
    y = net.relu(net.conv(y, 16, 12, name="b"))
    model = net.model(net.head(net.relu(net.conv(y, 12, 8, name="c")), 8))
    bias = next(n.input[2] for n in model.graph.node if n.name == "a")
    silence(silence(model, "a.weight", [1, 4, 9]), bias, [1, 4, 9])
    twin_all(twin_all(model, "a", 0, 5), "a", 0, 11)
    return mute(model, "c.weight", [2, 7])


@pytest.mark.parametrize(
    ("limits", "a", "b"),
    [
        ({}, 11, 10),
        ({"round_to": 2}, 12, 10),
        ({"round_to": 4}, 12, 12),
        ({"round_to": 8}, 16, 12),
        ({"min_width": 11}, 11, 11),
        ({"min_width": 13}, 13, 12),
        ({"round_to": 2, "min_width": 11}, 12, 12),
    ],
)
def test_widths(limits, a, b):
    model = chain()
    result, counts = check(model, **limits)
    after = widths(result.model)
    assert (after["a"], after["b"]) == (a, b)
    assert sum(counts) == 28 - a - b
    kept = {n for n, r in reasons(result).items() if r.startswith("some redundant channels stay")}
    assert kept == {n for n, width, most in (("a", a, 11), ("b", b, 10)) if width > most}


def test_the_note_says_what_keeps_them():
    both = RemoveRedundant(round_to=8, min_width=9)(chain())
    text = "some redundant channels stay, to keep widths multiples of 8 and at least 9"
    assert reasons(both) == {"a": text, "b": text}
    assert not both.modified


def test_what_a_filter_that_stays_reads_stays_too():
    """Channel 5 of a goes to filter 0 of b only, which nobody reads."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    model = mute(net.model(net.conv(y, 6, 4, name="c")), "c.weight", [0])

    def edit(W):
        W[1:, 5] = 0
        return W

    change(model, "b.weight", edit)
    assert check(model)[1] == (0, 2, 0)
    assert check(model, min_width=6)[1] == (0, 0, 0)
    assert check(model, exclude=["b"])[1] == (0, 0, 0)
    assert check(model, only=["a"])[1] == (0, 0, 0)
    assert check(model, only=["b"])[1] == (0, 1, 0)


def test_a_duplicate_whose_reader_comes_back_is_merged():
    """Of the channels 3 and 6 of a, which are equal, only filter 0 of b reads both."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    model = twin_all(mute(net.model(net.conv(y, 6, 4, name="c")), "c.weight", [0]), "a", 3, 6)

    def edit(W):
        W[1:, 6] = 0
        return W

    change(model, "b.weight", edit)
    result, counts = check(model)
    assert (sum(counts), result.plan.merged) == (2, ())
    result, counts = check(model, min_width=6)
    assert counts == (0, 0, 1)
    (entry,) = result.plan.merged
    assert (entry.node, entry.into, entry.added) == ("b", (3,), (6,))


def test_layers_that_the_user_names():
    model = chain()
    assert check(model, exclude=["a"])[1] == (0, 2, 0)
    assert check(model, only=["a"])[1] == (3, 0, 2)
    assert check(model, only=["a"], exclude=["a.*"])[1] == (0, 0, 0)
    with pytest.raises(OptionError, match="exclude pattern 'z' matches no layer"):
        RemoveRedundant(exclude=["z"])(model)


def test_a_layer_that_keeps_its_filters_still_takes_over():
    """`exclude` speaks of filters; the layer's bias and the channels it reads may change."""
    result, counts = check(chain(), exclude=["b", "c"])
    assert counts == (3, 0, 2)
    assert [entry.node for entry in result.plan.merged] == ["b"]


@pytest.mark.parametrize("name", ["round_to", "min_width"])
def test_widths_below_one_are_refused(name):
    with pytest.raises(OptionError, match=f"{name} must be at least 1, not 0"):
        RemoveRedundant(**{name: 0})


def test_prune_passes_its_limits_on():
    model = chain()
    limits = {"round_to": 2, "min_width": 11, "only": ["a", "b"], "exclude": ["b"]}
    result = Prune(exact=True, **limits)(model)
    assert result.model == RemoveRedundant(**limits)(model).model
    assert result.details["filters_removed"] == 4
    half = Prune(exact=True, ratio=0.5, round_to=4)(model)
    after = widths(half.model)
    assert (after["a"], after["b"], after["c"]) == (8, 8, 4)
    again = Prune(plan=half.plan)(model)
    assert again.model.SerializeToString() == half.model.SerializeToString()


def test_the_hint_names_what_helps():
    rough = summary("prune", Prune(exact=True)(chain()))
    assert rough[-1].endswith("which can be slow; try --round-to 8")
    assert not any("hint" in x for x in summary("prune", Prune(exact=True, round_to=4)(chain())))


def test_without_limits_all_that_was_chosen_goes():
    """Looking once more at the end finds nothing that has to stay."""
    for seed in range(40):
        model = plant(random_model(random.Random(seed)), np.random.default_rng(seed))
        walk = number_values(analyse(model), RULES)
        choice = choose_redundant(walk.analysis, find_readers(walk), walk.values)
        assert (choice.removed == (choice.kind >= 0)).all()
        assert not any("to keep widths" in s.reason for s in choice.notes)


def check_limited(seeds):
    """Random limits on random graphs: they hold, and what goes is still without loss."""
    fewer = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = plant(random_model(random.Random(seed)), rng)
        before = widths(model)
        limits = {"round_to": int(rng.integers(1, 4)), "min_width": int(rng.integers(1, 6))}
        names = sorted(x for x in before if "[" not in x)
        if names and rng.random() < 0.5:
            limits["exclude"] = rng.choice(names, 1).tolist()
        if names and rng.random() < 0.3:
            limits["only"] = rng.choice(names, (len(names) + 1) // 2, replace=False).tolist()
        result, counts = check(model, **limits)
        fewer += sum(counts) < RemoveRedundant()(model).details["filters_removed"]
        for layer, width in widths(result.model).items() if result.modified else ():
            if width == before[layer]:
                continue
            assert width % limits["round_to"] == 0, (seed, layer)
            assert width >= limits["min_width"], (seed, layer)
            assert layer not in limits.get("exclude", ()), (seed, layer)
            assert layer in limits.get("only", [layer]), (seed, layer)
    assert fewer > len(seeds) // 4


def test_limits_hold_on_random_graphs():
    check_limited(range(20))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(1, 16))
def test_limits_hold_on_many_random_graphs(block):
    check_limited(range(3000 + 100 * block, 3100 + 100 * block))
