"""Tables for people, as rich renderables: ``console.print(comparison_table(comparison))``."""

from __future__ import annotations

from .comparison_table import comparison_table
from .difference_table import difference_table
from .group_table import group_table
from .inspection_tables import inspection_tables
from .skipped_table import skipped_table
from .sweep_table import sweep_table

__all__ = [
    "comparison_table",
    "difference_table",
    "group_table",
    "inspection_tables",
    "skipped_table",
    "sweep_table",
]
