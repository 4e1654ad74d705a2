"""Which checkpoint is of which epoch and iteration: from file names, or from a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from onnx_esn.errors import OptionError

KINDS = (".onnx", ".npz")
_EPOCH = re.compile(r"(?<![a-z])(?:epoch|ep|e)[-_=]?(\d+)", re.IGNORECASE)
_ITERATION = re.compile(r"(?<![a-z])(?:iteration|iter|it|i|step)[-_=]?(\d+)", re.IGNORECASE)
_COLUMNS = ("file", "epoch")


@dataclass(frozen=True)
class Checkpoint:
    """One file.

    Attributes:
        path: the file.
        epoch: the epoch that it was written in, from 0.
        iteration: iterations done in that epoch, 0 for its start; None at its end.
    """

    path: Path
    epoch: int
    iteration: int | None

    @property
    def order(self) -> tuple[int, bool, int]:
        """Where it stands in the training."""
        return self.epoch, self.iteration is None, self.iteration or 0

    @property
    def moment(self) -> str:
        """In words."""
        if self.iteration is None:
            return f"end of epoch {self.epoch}"
        return f"iteration {self.iteration} of epoch {self.epoch}"


def find_files(given: Sequence[str | Path]) -> list[Path]:
    """Return the files named; of a folder, the .onnx and .npz files in it.

    Raises:
        OptionError: there is nothing, or a file is of neither kind.
    """
    found: list[Path] = []
    for entry in map(Path, given):
        if entry.is_dir():
            inside = sorted(p for p in entry.iterdir() if p.suffix.lower() in KINDS)
            if not inside:
                raise OptionError(f"{entry}: has no .onnx or .npz files")
            found += inside
        elif entry.suffix.lower() not in KINDS:
            raise OptionError(f"{entry}: is no checkpoint; give .onnx or .npz files")
        elif not entry.is_file():
            raise OptionError(f"{entry}: no such file")
        else:
            found.append(entry)
    if not found:
        raise OptionError("give the checkpoints of a training, .onnx or .npz files")
    return found


def arrange(files: Sequence[Path], table: str | Path | None = None) -> list[Checkpoint]:
    """Return checkpoints in the order of the training.

    Without a table names decide: `epoch_003.onnx` is the end of epoch 3, `epoch_003_iter_040.npz`
    is after 40 iterations of it. Where all files have iterations, the last one of each epoch is
    its end.

    Args:
        files: the files.
        table: a CSV with the columns file, epoch and iteration; an empty iteration is the end.

    Raises:
        OptionError: a file has no epoch, or two files are of the same moment.
    """
    marks = {} if table is None else dict(_rows(Path(table), files))
    found = [
        Checkpoint(path, *marks[path]) if path in marks else _by_name(path, table) for path in files
    ]
    found.sort(key=lambda c: c.order)
    for before, after in pairwise(found):
        if before.order == after.order:
            raise OptionError(f"{before.path} and {after.path} are both the {after.moment}")
    return found


def _by_name(path: Path, table: str | Path | None) -> Checkpoint:
    if table is not None:
        raise OptionError(f"{table}: says nothing of {path.name}; add a line, or leave it out")
    epoch, iteration = _EPOCH.search(path.stem), _ITERATION.search(path.stem)
    if epoch is None:
        raise OptionError(
            f"{path}: its name says no epoch; call it such as epoch_003{path.suffix} or "
            f"epoch_003_iter_040{path.suffix}, or give --iterations"
        )
    return Checkpoint(path, int(epoch[1]), None if iteration is None else int(iteration[1]))


def _rows(table: Path, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[int, int | None]]]:
    """Epoch and iteration of the files that a table names."""
    by_name: dict[str, Path] = {}
    for path in files:
        if by_name.setdefault(path.name, path) != path:
            raise OptionError(f"{table}: two files are called {path.name}; rename one")
    for line, row in read_table(table, _COLUMNS):
        named = by_name.get(Path(row["file"] or "").name)
        if named is not None:
            after = row.get("iteration")
            step = None if after is None or not after.strip() else whole(after, table, line)
            yield named, (whole(row["epoch"], table, line), step)


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, each with its line; raises `OptionError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"{path}: cannot be read ({reason})") from error
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise OptionError(f"{path}: has no column {missing[0]!r}; it needs {', '.join(columns)}")
    for row in reader:
        yield reader.line_num, row


def whole(text: str | None, path: Path, line: int) -> int:
    """A number from 0; raises `OptionError`."""
    try:
        value = int((text or "").strip())
    except ValueError:
        value = -1
    if value < 0:
        raise OptionError(f"{path}, line {line}: {text!r} is not a whole number from 0")
    return value
