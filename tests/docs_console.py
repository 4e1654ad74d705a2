"""The `console` blocks of the docs: run them, compare them, refresh them.

`python -m tests.docs_console` runs every command in a copy of the examples and puts the real lines
in place of those shown. Numbers change; what changed its words is printed, to be mended by hand.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))
# These make the files that the others use.
FIRST = ["docs/concepts/plans.md", "docs/concepts/recalibration.md", "docs/quickstart.md"]
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.S | re.M)
LEFT_OUT = "…"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Contents of the fenced blocks of one language."""
    return [body for _, info, body in FENCE.findall(text_of(page)) if info.strip() == language]


def runs(body: str) -> list[tuple[str, list[str]]]:
    """(command, lines of output shown) of a console block."""
    parts = re.split(r"^\$ (.*)\n", body, flags=re.M)
    return [(c, out.splitlines()) for c, out in zip(parts[1::2], parts[2::2], strict=True)]


def run_all(folder: Path) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(page, command, lines shown, real lines) of every command, run in `folder`."""
    for name in ("examples", "calibration"):
        shutil.copytree(ROOT / name, folder / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = "".join(b for b in blocks("docs/quickstart.md", "sh") if "my-images" in b)
    subprocess.run(["bash", "-euc", own], cwd=folder, check=True)
    for page in [*FIRST, *(p for p in PAGES if p not in FIRST)]:
        for body in blocks(page, "console"):
            for command, shown in runs(body):
                done = subprocess.run(
                    shlex.split(command),
                    cwd=folder,
                    env={**os.environ, "PATH": path},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                yield page, command, shown, [x.rstrip() for x in done.stdout.splitlines()]


def blurred(line: str) -> str:
    """A line without its numbers and verdicts, which differ from machine to machine."""
    line = re.sub(r"[−+-]?\d[\d.,]*\s?(?:[kMG]?B\b|[kMG]\b)?", "#", line)
    line = re.sub(r"\b(accepted|rejected)\b.*", "", line).removesuffix("◂ front")
    return re.sub(r"\s+", " ", re.sub(r"─+", "─", line)).strip()


def brought_up_to_date(shown: list[str], real: list[str]) -> tuple[list[str], list[str]]:
    """The lines shown with those of `real` in their place, and the lines it does not have."""
    result, missing, at = [], [], 0
    for line in shown:
        if line.strip() in ("", LEFT_OUT):
            result.append(line)
            continue
        here = [i for i in range(at, len(real)) if blurred(real[i]) == blurred(line)]
        if not here:
            missing.append(line)
            result.append(line)
            continue
        result.append(real[here[0]])
        at = here[0] + 1
    return result, missing


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for page, command, shown, real in run_all(Path(folder)):
            if shown == ["@@"]:
                new, missing = real, []
            else:
                new, missing = brought_up_to_date(shown, real)
            for line in missing:
                print(f"{page}: $ {command}\n  not in the output: {line}")
            old_text, new_text = ("\n".join([f"$ {command}", *x, ""]) for x in (shown, new))
            text = text_of(page)
            assert old_text in text, (page, command)
            (ROOT / page).write_text(text.replace(old_text, new_text, 1), encoding="utf-8")


if __name__ == "__main__":
    main()
