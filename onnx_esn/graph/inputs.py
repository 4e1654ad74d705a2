"""The inputs of a model: which have to be fed, and a concrete size for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from onnx_esn.errors import ModelError, OptionError

Shape = tuple[int, ...]


def data_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that have to be fed (an initializer of the same name is a default value)."""
    names = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in names]


def declared_shape(info: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Declared shape: a number, a symbol or None per axis; None when there is no shape at all."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
        for d in tensor.shape.dim
    )


def input_sizes(
    model: onnx.ModelProto,
    *,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    spatial: int | None = None,
) -> dict[str, Shape]:
    """A concrete shape for each graph input.

    Args:
        model: the model.
        batch: size of a dynamic first axis (default 1).
        shapes: explicit shapes by input name.
        spatial: size of every other dynamic axis; None means that there must not be any.

    Raises:
        OptionError: an explicit shape contradicts the model or names no input of it, or a dynamic
            axis has no size.
        ModelError: an input declares no shape.
    """
    names = [info.name for info in data_inputs(model)]
    for name in shapes or ():
        if name not in names:
            raise OptionError(f"no input is called {name!r}; the inputs are {', '.join(names)}")
    result: dict[str, Shape] = {}
    symbols: dict[str, int] = {}
    batches = _batch_symbols(model)
    for info in data_inputs(model):
        declared = declared_shape(info)
        given = tuple(shapes[info.name]) if shapes and info.name in shapes else None
        if given is not None and any(n < 1 for n in given):
            raise OptionError(f"shape {_text(given)} of input {info.name!r} has an axis below 1")
        if declared is None:
            if given is None:
                raise ModelError(
                    f"input {info.name!r} declares no shape; give it with --input-shape"
                )
            result[info.name] = given
            continue
        if given is not None and (
            len(given) != len(declared)
            or any(isinstance(d, int) and d != g for d, g in zip(declared, given, strict=True))
        ):
            raise OptionError(
                f"shape {_text(given)} does not fit input {info.name!r} of shape {_text(declared)}"
            )
        sizes = []
        for axis, dim in enumerate(declared):
            if given is not None:
                size = given[axis]
            elif isinstance(dim, int):
                size = dim
            elif isinstance(dim, str) and dim in symbols:
                size = symbols[dim]
            elif axis == 0 or dim in batches:
                size = batch or 1
            elif spatial is not None:
                size = spatial
            else:
                raise OptionError(
                    f"input {info.name!r} has the dynamic shape {_text(declared)}; "
                    f"give a size with --input-shape, for example {_example(declared)}"
                )
            if isinstance(dim, str):
                symbols.setdefault(dim, size)
            sizes.append(size)
        result[info.name] = tuple(sizes)
    return result


def resized(
    model: onnx.ModelProto,
    sizes: Mapping[str, Shape],
    batch: Callable[[int], int],
    other: Callable[[int, int], int],
) -> dict[str, Shape]:
    """Other sizes for the dynamic axes, the same for axes of one symbol.

    Args:
        model: the model.
        sizes: a shape for each input.
        batch: from a size of the batch to another.
        other: the same for every other dynamic axis, from its size and its position.
    """
    batches = _batch_symbols(model)
    symbols: dict[str, int] = {}
    result = {}
    for info in data_inputs(model):
        shape = list(sizes[info.name])
        for axis, d in enumerate(declared_shape(info) or ()):
            if isinstance(d, int):
                continue
            n = shape[axis]
            size = max(1, batch(n) if axis == 0 or d in batches else other(n, axis))
            shape[axis] = symbols.setdefault(d, size) if d else size
        result[info.name] = tuple(shape)
    return result


def _batch_symbols(model: onnx.ModelProto) -> set[str]:
    """Symbols of first axes: a state may have the batch on another one."""
    declared = [declared_shape(info) for info in data_inputs(model)]
    return {d[0] for d in declared if d and isinstance(d[0], str)}


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _example(declared: Sequence[int | str | None]) -> str:
    return ",".join(
        str(d) if isinstance(d, int) else "1" if axis == 0 else "224"
        for axis, d in enumerate(declared)
    )
