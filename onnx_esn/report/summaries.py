"""What each verb says when it is done: a line or two for people, a document for machines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from onnx_esn.passes.base import PassResult
from onnx_esn.report.layout import count
from onnx_esn.report.numbers import percent, si, size

RESULT_SCHEMA = "onnx-esn/result/1"


def prune_summary(details: Mapping[str, Any]) -> str:
    """Filters, or kernel positions, and MACs."""
    if "positions_before" in details:
        return spatial_summary(details)
    before, after = details["macs_before"], details["macs_after"]
    share = f" ({percent(after / before)} left)" if before else ""
    return (
        f"removed {details['filters_removed']} of {details['filters_prunable']} prunable filters; "
        f"MACs {si(before)} → {si(after)}{share}"
    )


def spatial_summary(details: Mapping[str, Any]) -> str:
    """What became of kernel positions."""
    before, after = details["macs_before"], details["macs_after"]
    share = f" ({percent(after / before)} left)" if before else ""
    line = (
        f"of {details['positions_before']} kernel positions {details['positions_cut']} are cut off "
        f"({count(details['layers_shrunk'], 'layer')} with smaller kernels)"
    )
    if details["positions_zeroed"]:
        line += f" and {details['positions_zeroed']} zeroed, which saves no MACs"
    return f"{line}; MACs {si(before)} → {si(after)}{share}"


def prune_hints(details: Mapping[str, Any]) -> list[str]:
    """What went without loss, and widths that are slow to run."""
    lines = []
    exact = details.get("exact")
    if exact is not None:
        kinds = ("dead", "unread", "duplicate")
        parts = [f"{exact[f'filters_{k}']} {k}" for k in kinds if exact[f"filters_{k}"]]
        which = f" ({', '.join(parts)})" if parts else ""
        lines.append(f"{exact['filters_removed']} of them without loss{which}")
    if "selection" in details:
        lines += selection_lines(details["selection"])
    uneven = details.get("layers_uneven", 0)
    if uneven:
        lines.append(
            f"hint: the new width of {count(uneven, 'layer')} is no multiple of 4, "
            "which can be slow; try --round-to 8"
        )
    return lines


def selection_lines(selection: Mapping[str, Any]) -> list[str]:
    """What the channels that stay are worth together, and how each budget was used."""
    greedy = selection["greedy"]
    beside = "" if greedy is None else f"greedy {percent(greedy)}, "
    lines = [
        f"channels worth {percent(selection['objective'])} of all together "
        f"({beside}at most {percent(selection['bound'])})"
    ]
    for name, budget in selection["budgets"].items():
        if name != "macs":
            before, after = si(budget["before"]), si(budget["after"])
            lines.append(f"{budget['unit']} {before} → {after}, limit {si(budget['limit'])}")
    if selection["time_limit_reached"]:
        lines.append("the time limit ended the search: another run may find something else")
    return lines


def zero_summary(details: Mapping[str, Any]) -> str:
    """Filters at 0 bits, and the MACs they free."""
    before, after = details["macs_before"], details["macs_after"]
    return f"removed {details['filters_removed']} filters; MACs {si(before)} → {si(after)}"


def quantize_summary(details: Mapping[str, Any]) -> str:
    """Filters, bits and ESN'_d."""
    layers = count(details["quantized_layers"], "layer")
    line = f"quantized {details['filters']} filters in {layers}"
    if details.get("pruned_filters"):
        line += f", {details['pruned_filters']} of them to 0 bits"
    if details.get("removed_filters"):
        line += f" ({details['removed_filters']} removed)"
    if details.get("views", 1) > 1:
        line += f" on {count(details['images'], 'image')}, {details['views']} views of each"
    before, after = details.get("cost_before"), details.get("cost_after")
    if before and after is not None:
        line += f"; ESN'_d {si(before)} → {si(after)} MAC·bit ({percent(after / before)})"
    if details.get("target") is not None:
        line += f", target {si(details['target'])}"
    return line


def trial_lines(details: Mapping[str, Any]) -> list[str]:
    """What was tried to meet a budget, a line each, the best marked."""
    trials = details.get("trials") or []
    if len(trials) < 2:
        return []
    lines = ["tried, by divergence on held-out images:"]
    for rank, trial in enumerate(sorted(trials, key=lambda t: t["divergence"])):
        macs = "all channels" if trial["macs"] is None else f"MACs {si(trial['macs'])}"
        lines.append(f"  {trial['divergence']:.4g} with {macs}{said_of(trial, rank)}")
    return lines


def was_kept(trial: Mapping[str, Any], rank: int) -> bool:
    """Whether a trial was kept; of documents that do not say, the one of the least divergence."""
    return bool(trial.get("kept", rank == 0))


def said_of(trial: Mapping[str, Any], rank: int) -> str:
    """Whether a trial was kept; if it should have been by its rank, why not."""
    if was_kept(trial, rank):
        return " (kept)"
    return " (not clearly better)" if rank == 0 else ""


def refit_summary(details: Mapping[str, Any]) -> str:
    """How many layers."""
    return f"refitted {count(details['refitted_layers'], 'layer')} to the input model's outputs"


def recalibrate_summary(details: Mapping[str, Any]) -> str:
    """Method, images and what the gate said."""
    line = f"{details['method']}: {details['points']} points on {details['images']} images"
    before, after = details.get("divergence_before"), details.get("divergence_after")
    if before is not None and after is not None:
        verdict = "accepted" if details["accepted"] else "rejected, model left as it was"
        return (
            f"{line}; divergence on {details['held_out_images']} held-out images "
            f"{before:.4g} → {after:.4g}: {verdict}"
        )
    return f"{line}; {details.get('gate', '')}".rstrip("; ")


def learn_summary(details: Mapping[str, Any]) -> str:
    """Epochs, and what the held-out images said."""
    line = f"learned for {count(details['epochs'], 'epoch')}"
    before, after = details["divergence_before"], details["divergence_after"]
    if before is None:
        return f"{line}; too few images to hold some out, so not checked"
    verdict = "accepted" if details["accepted"] else "rejected, left as it was"
    return (
        f"{line}; divergence on {details['held_out_images']} held-out images "
        f"{before:.4g} → {after:.4g}: {verdict}"
    )


def equalize_summary(details: Mapping[str, Any]) -> str:
    """How many channels."""
    scaled, locked = details["scaled_channels"], details["locked_channels"]
    return f"scaled {scaled} of {count(scaled + locked, 'channel')}"


def rotate_summary(details: Mapping[str, Any]) -> str:
    """How many linear tensors, of how many channels."""
    streams = details["rotated"]
    if not streams:
        return "no linear tensor lies between layers: nothing to rotate"
    channels = sum(stream["channels"] for stream in streams)
    return f"rotated {count(len(streams), 'linear tensor')} ({count(channels, 'channel')})"


def annotate_summary(details: Mapping[str, Any]) -> str:
    """How many layers."""
    return f"annotated {details['annotated']} layers"


def format_lines(details: Mapping[str, Any]) -> list[str]:
    """Format, bytes, what the layers became; then what else was done."""
    written = details["format"]
    before, after = written["bytes_before"], written["bytes_after"]
    line = f"format {written['name']}: {size(before)} → {size(after)}"
    if written["forms"]:
        forms = ", ".join(f"{n} {form}" for form, n in written["forms"].items())
        line += f"; {count(len(written['layers']), 'layer')}: {forms}"
    return [line, *written["notes"]]


def format_summary(details: Mapping[str, Any]) -> str:
    """The first of these lines."""
    return format_lines(details)[0]


def integer_summary(details: Mapping[str, Any]) -> str:
    """Activations, layers on integers, bytes."""
    done = details["integers"]
    whole, left = len(done["integer_layers"]), len(done["float_layers"])
    how = "ranges known" if done["calibrator"] == "known" else done["calibrator"]
    line = f"activations {done['activations']} ({how})"
    line += f": {whole} of {count(whole + left, 'layer')} on integers"
    if done["rounded_filters"]:
        filters = sum(done["rounded_filters"].values())
        line += f"; {count(filters, 'filter')} rounded to int8"
    return f"{line}; {size(done['bytes_before'])} → {size(done['bytes_after'])}"


def requantize_summary(details: Mapping[str, Any]) -> str:
    """How many layers."""
    return f"turned the weights of {details['opened_layers']} quantized layers back to floats"


SUMMARIES = {
    "requantize": requantize_summary,
    "prune": prune_summary,
    "quantize": quantize_summary,
    "recalibrate": recalibrate_summary,
    "annotate": annotate_summary,
    "equalize": equalize_summary,
    "rotate": rotate_summary,
    "remove zero filters": zero_summary,
    "refit": refit_summary,
    "learn": learn_summary,
    "export": format_summary,
    "convert": format_summary,
    "quantize activations": integer_summary,
}


def summary(verb: str, result: PassResult) -> list[str]:
    """Lines for one pass, its recalibration included."""
    return stage_lines(verb, result.details)


def stage_lines(stage: str, details: Mapping[str, Any], *, trials: bool = True) -> list[str]:
    """Lines for the details of one pass; `trials`: with what was tried, too."""
    lines = [SUMMARIES[stage](details)]
    if stage == "prune":
        lines += prune_hints(details)
        if "refitted_layers" in details:
            lines.append(refit_summary(details))
    if stage == "quantize":
        if details.get("rotated"):
            lines.insert(0, rotate_summary(details))
        lines += trial_lines(details) if trials else []
        if "learning" in details:
            lines.append(learn_summary(details["learning"]))
    if "format" in details:
        lines += format_lines(details)[int(stage in ("export", "convert")) :]
    if "integers" in details and stage == "quantize":
        lines.append(integer_summary(details))
    if "recalibration" in details:
        lines.append(recalibrate_summary(details["recalibration"]))
    return lines


def result_document(
    command: str, stages: Iterable[tuple[str, PassResult]], outputs: Mapping[str, str]
) -> dict[str, Any]:
    """What a command that writes a model says in JSON."""
    return {
        "schema": RESULT_SCHEMA,
        "command": command,
        "outputs": dict(outputs),
        "stages": [
            {
                "stage": name,
                "modified": result.modified,
                "details": plain(result.details),
                "skipped": [{"node": s.node, "reason": s.reason} for s in result.skipped],
            }
            for name, result in stages
        ],
    }


def plain(value: Any) -> Any:
    """JSON-ready: infinite and undefined numbers become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
