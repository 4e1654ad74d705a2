"""The two files of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_esn.errors import OutputError
from onnx_esn.graph.model_file import write_bytes

from .assembly import report_page

PAGE, DATA = "report.html", "report.json"


def write_report(document: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a folder, which is made where it is missing.

    Args:
        document: what ``--json`` prints, with a ``report`` in it.
        folder: where to.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name of bytes that are no UTF-8 has lone surrogates: JSON writes them as codes.
    data = text.encode("utf-8", "backslashreplace")
    return (
        write_bytes(report_page(document).encode("utf-8"), folder / PAGE),
        write_bytes(data, folder / DATA),
    )
