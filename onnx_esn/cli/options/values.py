"""What the values of options are: shapes, lists, places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_esn.urls import is_url

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # it takes no type argument when it runs, before click 8.4
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class Shape(ParamType):
    """`1,3,224,224` or `name:1,3,224,224`, as (name, sizes)."""

    name = "shape"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse, or fail with what is expected."""
        if not isinstance(value, str):
            return value
        name, _, sizes = value.rpartition(":")
        try:
            shape = tuple(int(n) for n in sizes.split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            self.fail(f"{value!r} is not a shape such as 1,3,224,224 or name:1,3,224,224")
        return name, shape


class Numbers(ParamType):
    """Numbers separated by commas."""

    name = "list"

    def __init__(self, kind: Callable[[str], Any]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse, or fail with what is expected."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(v) for v in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers separated by commas")


class Place(click.Path):
    """A path, or a URL, which stays the text that it is."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A `Path`, or a URL as it was given."""
        return value if is_url(value) else super().convert(value, param, ctx)


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def wrap(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return wrap
