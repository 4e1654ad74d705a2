"""A report as one page: data → parts → page.

`compression_report` looks into a compression, `report_page` makes HTML of the document that a
command prints with ``--json``, `write_report` writes both. The page is whole in itself: no network,
no other file; without JavaScript it shows the same figures.
"""

from __future__ import annotations

from .assembly import report_page
from .gathering import compression_document, compression_report
from .report import Report
from .sweeping import sweep_report
from .writing import write_report

__all__ = [
    "Report",
    "compression_document",
    "compression_report",
    "report_page",
    "sweep_report",
    "write_report",
]
