"""Blocks of the language `math` become MathML when the site is built: no script, no font needed.

Code hosts render the same blocks by themselves.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> Any:
    """Tell the Markdown extension of fenced blocks who makes formulas."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "formula", "format": formula}]
    return config


def formula(source: str, language: str, css_class: str, *rest: Any, **more: Any) -> str:
    """Return the formula as HTML."""
    # What the converter does not know in words that it does: aligned lines, upright letters.
    source = source.strip().replace("{aligned}", "{align*}")
    source = re.sub(r"\\mathrm\{(\w)\}", r"\\text{\1}", source)
    return f'<div class="{css_class}">{convert(source, display="block")}</div>'
