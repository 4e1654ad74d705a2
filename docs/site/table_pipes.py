"""Code in tables: code hosts want a bar in it escaped, the Markdown of the site does not."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Take the backslash away, in code spans of table rows."""
    rows = (bare(line) if line.startswith("|") else line for line in markdown.split("\n"))
    return "\n".join(rows)


def bare(row: str) -> str:
    """Return a row of a table with plain bars in its code spans."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), row)
