"""The plots of a sweep, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .bit_width_plot import chosen_target, draw_bit_widths
from .pareto_plot import draw_pareto
from .plot_style import finished, write_plot

# The names of the files, and the cost of each.
_FILES = {"pareto": "esn_prime", "pareto_esn_d": "esn_d", "pareto_esn_a": "esn_a"}


def plot_sweep(document: Mapping[str, Any], out_dir: str | Path) -> tuple[Path, ...]:
    """Draw a sweep's document into a folder, each plot as PNG and SVG.

    ``pareto`` has the quality against ESN'_d, ``pareto_esn_d`` and ``pareto_esn_a`` against the
    other two costs where they are known, and ``bit_widths`` the filters by bits at the target that
    most methods reached.

    Raises:
        OptionError: matplotlib is not installed, or no point of the sweep was finished.
        OutputError: the files cannot be written.
    """
    folder = Path(out_dir)
    paths: list[Path] = []
    for name, cost in _FILES.items():
        if name == "pareto" or any(point.get(cost) for point in finished(document)):
            paths += pareto_plot(document, folder / f"{name}.png", folder / f"{name}.svg", cost)
    target = chosen_target(document)
    if target is not None:
        paths += bit_width_plot(
            document, folder / "bit_widths.png", folder / "bit_widths.svg", target
        )
    return tuple(paths)


def pareto_plot(
    document: Mapping[str, Any], png: Path, svg: Path, cost: str = "esn_prime"
) -> tuple[Path, Path]:
    """Draw quality against a cost (``esn_prime``, ``esn_d``, ``esn_a``); raises as `plot_sweep`."""
    return write_plot(lambda: draw_pareto(document, cost), png, svg)


def bit_width_plot(
    document: Mapping[str, Any], png: Path, svg: Path, target: float
) -> tuple[Path, Path]:
    """Draw the filters of each method by bits at a target; raises as `plot_sweep`."""
    return write_plot(lambda: draw_bit_widths(document, target), png, svg)
