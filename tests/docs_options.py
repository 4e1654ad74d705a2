"""The option tables of docs/cli.md: made from the command line itself.

`python -m tests.docs_options` writes them anew; a test fails where that would change anything.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from onnx_esn.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
SHARED = {"quiet", "verbose", "json", "as_json", "help"}
TABLE = re.compile(r"(<!-- options:([a-z]+) -->\n).*?(<!-- end -->)", re.S)
# Where the page says more than fits a line of help: option, or "verb option", and what it links to.
SEE = {
    "--across": "[equalisation](concepts/equalization.md#clip)",
    "--absorb": "[absorption](concepts/pruning.md#absorption)",
    "--activations": "[activations](concepts/activations.md)",
    "--bits": "[quantizer](concepts/quantizer.md)",
    "--calibrator": "[ranges](concepts/activations.md#ranges)",
    "--channels": "[joint allocation](concepts/joint-allocation.md)",
    "--criterion": "[criteria](concepts/pruning.md#criteria)",
    "--effort": "[trials](concepts/joint-allocation.md#trials)",
    "--exact": "[exact first](concepts/pruning.md#exact-first)",
    "--format": "[formats](concepts/formats.md)",
    "--granularity": "[spatial pruning](concepts/spatial.md)",
    "--groups": "[channel groups](concepts/channel-groups.md)",
    "--images": "[SET](#values)",
    "--keep-opset": "[operator set](concepts/formats.md#operator-set-and-ir-version)",
    "--labels": "[labels](#values)",
    "--latency-model": "[latency](concepts/latency.md)",
    "--learn": "[learning](concepts/learning.md)",
    "--max-divergence": "[divergence](concepts/compare.md#divergence)",
    "--method": "[compensation](concepts/compensation.md), [ACIQ](concepts/aciq.md), "
    "[learning](concepts/learning.md)",
    "--only": "[PATTERN](#values)",
    "--plan": "[plans](concepts/plans.md)",
    "--policy": "[trace](#trace)",
    "--quantizer": "[quantizer](concepts/quantizer.md#mid-tread-for-comparison)",
    "--ratios-out": "[pruning ratios](concepts/plans.md#pruning-ratios)",
    "--recipe": "[recipes](../calibration/README.md)",
    "--refit": "[reconstruction](concepts/reconstruction.md)",
    "--requantize": "[quantized inputs](concepts/quantized-inputs.md#quantize-once-more)",
    "--rotate": "[rotation](concepts/rotation.md)",
    "--round-to": "[widths and speed](concepts/pruning.md#widths-and-speed)",
    "--scope": "[scope](concepts/pruning.md#how-many-ratio-macs-scope)",
    "--selection": "[channel selection](concepts/selection.md)",
    "--target-cost": "[P](#values)",
    "--target-macs": "[P](#values)",
    "recalibrate --method": "[two methods](concepts/recalibration.md#two-methods)",
}


def page() -> str:
    """Return the page with every table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    return TABLE.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", text)


def table(verb: str) -> str:
    """Return the options of a verb as a table, but for those that every verb has."""
    command = cli.commands[verb]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in SHARED]
    return "\n".join(
        [
            "",
            "| option | default | meaning |",
            "|---|---|---|",
            *(row(verb, o) for o in options),
            "\n",
        ]
    )


def row(verb: str, option: click.Option) -> str:
    """Return one line of a table."""
    names = sorted([*option.opts, *option.secondary_opts], key=lambda n: not n.startswith("--"))
    value = f" {option.metavar}" if option.metavar else ""
    shown = ", ".join(f"`{name}{value if name == names[0] else ''}`" for name in names)
    choices = option.type.choices if isinstance(option.type, click.Choice) else ()
    values = ", ".join(f"`{choice}`" for choice in choices)
    more = SEE.get(f"{verb} {names[0]}", SEE.get(names[0], ""))
    said = ": ".join(filter(None, [values, meaning(option)]))
    text = (
        said
        + ("; may be repeated" if option.multiple and "once per" not in said else "")
        + (f" ({more})" if more else "")
    )
    return f"| {shown} | {default(option)} | {text} |".replace("|  |", "| |")


def meaning(option: click.Option) -> str:
    """Return the help as part of a table: no capital, no full stop, options as code."""
    said = (option.help or "").strip().removesuffix(".").replace("|", "\\|")
    if said[1:2].islower():
        said = said[0].lower() + said[1:]
    parts = said.split("`")  # every other one is code already
    parts[::2] = [re.sub(r"(?<![\w-])(--?[a-z][a-z-]*)", r"`\1`", part) for part in parts[::2]]
    return "`".join(parts)


def default(option: click.Option) -> str:
    """Return what holds where an option is not given, where its help does not say."""
    if option.required:
        return "required"
    if not option.show_default:
        return ""
    number = isinstance(option.default, float) and option.default.is_integer()
    return f"`{int(option.default) if number else option.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
