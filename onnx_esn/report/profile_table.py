"""What `profile` found, layer by layer."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from onnx_esn.passes.profiling.assembly import Profile

from .layout import cell, count, elide, grid, note
from .numbers import percent
from .skipped_table import skipped_table

_NAME = 26


def profile_table(found: Profile) -> RenderableType:
    """One row per distinct layer, then how the whole model is made up."""
    layers = sum(len(x.names) for x in found.layers)
    title = f"{count(layers, 'layer')}, {len(found.layers)} of them distinct"
    table = grid(title, gap=1)
    table.add_column("layer", no_wrap=True)
    for heading in ("×", "in→out", "kernel", "µs", "in model", "spread", "R²"):
        table.add_column(heading, justify="right", no_wrap=True)
    for x in found.layers:
        table.add_row(
            cell(elide(x.names[0], _NAME)),
            str(len(x.names)),
            "→".join(map(str, x.widths)),
            "×".join(map(str, x.kernel)),
            f"{1e6 * x.seconds:,.0f}",
            f"{x.in_model:.2f}",
            percent(x.spread, 0).replace(" ", ""),
            f"{x.fit.r2:.3f}",
        )
    parts: list[RenderableType] = [table]
    parts.append(
        note(
            "µs: alone at full width; in model: its time in the whole model over that; "
            "spread: median run above the fast ones"
        )
    )
    parts.append(Text(""))
    parts.append(
        Text(
            f"whole model {_ms(found.seconds)} measured ({percent(found.spread, 0)} spread), "
            f"{_ms(found.modelled)} modelled: rest {_ms(found.model.rest)}, "
            f"other operators {_ms(found.others)}"
        )
    )
    missing = skipped_table(found.skipped)
    if missing is not None:
        parts += [Text(""), missing]
    return Group(*parts)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
