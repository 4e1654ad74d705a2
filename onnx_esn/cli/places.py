"""Where a command writes: places of their own, free, and known to be so before the work starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnx_esn.errors import OptionError, OutputError
from onnx_esn.targets import keep_claimed

if TYPE_CHECKING:
    import onnx


def open_model(model: Path, *outputs: Path | None, **read: Path | None) -> onnx.ModelProto:
    """Open the model, once it is clear that each output has a place of its own to go.

    Args:
        model: its file.
        outputs: what is written.
        read: what else is read, by what it is.

    Raises:
        OptionError: an output is a folder, has no folder, or is read by this command.
        OutputError: an output cannot be written, or another run is writing it.
        ModelError: the model cannot be read.
    """
    from onnx_esn.verbs import opened

    places: list[Path] = []
    wanted = [o for o in outputs if o is not None]
    for output in wanted:
        if output.resolve() in places:
            raise OptionError(f"{output}: named for two outputs; write to two files")
        places.append(output.resolve())
        for what, other in read.items():
            if other is not None and output.resolve() == other.resolve():
                what = what.replace("_", " ")
                raise OptionError(f"{output}: is the {what} that is read; write to another file")
        if output.is_dir():
            raise OptionError(f"{output}: is a folder; name a file to write")
        if not output.parent.is_dir():
            raise OptionError(f"{output}: its folder does not exist; create it first")
        if output.exists() and not output.is_file():
            raise OptionError(f"{output}: is a device or a pipe; name a file to write")
        if output.exists() and model.exists() and output.samefile(model):
            raise OptionError(f"{output}: is the input itself; write to another file")
        _check_not_read(output, wanted)
        if output.exists():
            from onnx_esn.graph.external_data import data_files

            if any(data.exists() and data.samefile(output) for data in data_files(model)):
                raise OptionError(f"{output}: has the weights of the input; write to another file")
    for output in wanted:
        keep_claimed(output)
    return opened(model, outside=True, hand_on=True)


def _check_not_read(output: Path, outputs: Sequence[Path]) -> None:
    """Refuse an output that any other option of the command names as something to read."""
    context = click.get_current_context(silent=True)
    if context is None or not output.exists():
        return
    for name, given in context.params.items():
        for path in given if isinstance(given, tuple) else (given,):
            if not isinstance(path, Path) or any(path is other for other in outputs):
                continue
            if path.exists() and path.samefile(output):
                what = name.replace("_", " ")
                raise OptionError(f"{output}: is the {what} that is read; write to another file")


def check_folder(folder: Path | None) -> None:
    """Refuse a folder to write that cannot be made, or is read; nothing is made yet.

    Raises:
        OptionError: it is a file, or among the images.
        OutputError: it cannot be written, or another run is writing it.
    """
    if folder is None:
        return
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise OptionError(f"{nearest}: is a file; name a folder to write")
    effective = os.access in os.supports_effective_ids
    if not os.access(nearest, os.W_OK, effective_ids=effective):
        raise OutputError(f"{nearest}: cannot be written; name another folder")
    context = click.get_current_context(silent=True)
    for name in ("images", "eval_images"):
        read = None if context is None else context.params.get(name)
        if isinstance(read, Path) and folder.resolve().is_relative_to(read.resolve()):
            # The plots would be images of the next run.
            raise OptionError(f"{folder}: is within the images that are read; name another folder")
    if folder.is_dir():
        keep_claimed(folder)
