"""Which point of a sweep to look into, and how to make each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_esn.search.methods import Options, grid_jobs, method_jobs

from .shell import command_words

# How far below the input model a point may be: a point of accuracy or agreement; else this SNR.
_BELOW, _DECIBELS = 0.01, 20.0
_NAMES = {"accuracy": "accuracy", "top1": "top-1 agreement", "snr_db": "SNR"}
_BOOLEAN = {"channels": ("--channels", "--no-channels")}


def choose_point(document: Mapping[str, Any]) -> tuple[int, str] | None:
    """The index of the point to look into, and the rule in words; None where none was finished.

    It is the cheapest on the front that is good enough, else the best there is.
    """
    metric = document["metric"]
    front = [
        (point["esn_prime"], index)
        for index, point in enumerate(document["points"])
        if point["status"] == "done" and point["pareto"]
    ]
    if not front:
        return None
    least, words = _limit(document, metric)
    good = [entry for entry in front if _value(document["points"][entry[1]], metric) >= least]
    if good:
        return min(good)[1], f"the cheapest on the front with {words}"
    best = max(front, key=lambda e: (_value(document["points"][e[1]], metric), -e[0]))
    return best[1], f"the best on the front; no point has {words}"


def point_options(point: Mapping[str, Any], macs: int, effort: str) -> Options:
    """The options of `compress` that make a point; ``macs``: those of the input model."""
    if point["method"] is not None:
        return method_jobs([point["method"]], [point["target"]], macs, effort)[0].options
    return grid_jobs([point["ratio"]], [point["bits"]])[0].options


def point_command(
    model: str, output: str, options: Mapping[str, Any], shared: Sequence[str]
) -> tuple[str, ...]:
    """The words of the command that makes a point, quoted.

    Args:
        model: path of the input model.
        output: file to write.
        options: see `point_options`.
        shared: arguments that all points have, such as ``--images``.
    """
    arguments = ["compress", model, "-o", output, *shared]
    for name, value in options.items():
        if isinstance(value, bool):
            on, off = _BOOLEAN[name]
            arguments.append(on if value else off)
        elif value is not None:
            arguments += [f"--{name.replace('_', '-')}", _number(value)]
    return command_words(arguments)


def _limit(document: Mapping[str, Any], metric: str) -> tuple[float, str]:
    if metric == "snr_db":
        return _DECIBELS, f"an SNR of {_DECIBELS:g} dB"
    name = _NAMES[metric]
    if metric == "top1":
        return 1 - _BELOW, f"at most {100 * _BELOW:g} % of the answers changed"
    return document["input"][metric] - _BELOW, f"at most {100 * _BELOW:g} point of {name} lost"


def _value(point: Mapping[str, Any], metric: str) -> float:
    value = point[metric]
    if value is None:  # no noise at all
        return float("inf") if point.get("normalized_error") == 0 else float("-inf")
    return float(value)


def _number(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
