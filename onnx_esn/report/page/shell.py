"""A command as one types it: words quoted for a POSIX shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from .markup import visible


def quoted(word: str) -> str:
    """A word for the shell; what cannot be seen or typed is written as bytes, in ``$'…'``.

    (bash, zsh, ksh and the POSIX standard of 2024 read that.)
    """
    if visible(word) == word:
        return shlex.quote(word)
    parts = []
    for character in word:
        if visible(character) != character:
            parts += [f"\\x{byte:02x}" for byte in os.fsencode(character)]
        else:
            parts.append("\\" + character if character in "\\'" else character)
    return "$'" + "".join(parts) + "'"


def command_words(arguments: Iterable[str]) -> tuple[str, ...]:
    """The words of a command line of this tool, quoted; ``arguments`` follow ``onnx-esn``."""
    return ("onnx-esn", *map(quoted, arguments))
