"""`profile`: how long each layer takes as a function of its widths, on this machine.

Each distinct layer is timed alone over a grid of widths. `contexts` says how that is corrected by
what its kernel takes inside whole models; then it is fitted by `onnx_esn.numerics.latency_fit`.
What a model's other kernels take (pooling, sums, concatenations) grows with the channels too: their
slope over the size of the layers' outputs is a part of c2. `rest` is what then is missing from the
wall times of the whole models: calls, and what no width changes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.graph.inputs import input_sizes
from onnx_esn.graph.model_file import check_model, load_model
from onnx_esn.graph.model_source import ModelSource, plain_source, source_name
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.layers.costs import InputShape, named_shapes
from onnx_esn.passes.profiling.assembly import Profile, assemble
from onnx_esn.passes.profiling.contexts import contexts_of
from onnx_esn.passes.profiling.kinds import find_kinds
from onnx_esn.passes.profiling.timing import RuntimeTimer, Timer, WholeTime, quieter_whole

Progress = Callable[[str, int, int], None]

# All is timed this often from beginning to end: a slow spell of the machine then hits only a part.
_SWEEPS = 2


def profile(
    model: ModelSource,
    *,
    threads: int | None = 1,
    points: int = 12,
    repeat: int = 40,
    round_to: int = 8,
    batch_size: int = 1,
    input_shape: InputShape | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    timer: Timer | None = None,
) -> Profile:
    """Time the layers of a model on this machine, and fit what their widths cost.

    Args:
        model: path or model.
        threads: threads of onnxruntime; None leaves them to it.
        points: widths of each layer that are timed.
        repeat: runs of each.
        round_to: the timed widths are multiples of this; what `prune --round-to` will be given.
        batch_size: samples at a time, where the model leaves that open.
        input_shape: sizes of dynamic axes.
        seed: says which widths are timed.
        progress: called with what is done.
        timer: what takes the times; None: onnxruntime.

    Raises:
        ModelError: the model cannot be read.
        OptionError: a number is out of range, or the shape does not fit.
        InferenceError: onnxruntime cannot run the model.
    """
    limits = {"points": (points, 4), "repeat": (repeat, 1), "threads": (threads or 1, 1)}
    limits |= {"round_to": (round_to, 1), "batch_size": (batch_size, 1), "seed": (seed, 0)}
    for name, (value, least) in limits.items():
        if value < least:
            raise OptionError(f"{name} must be at least {least}, not {value}")
    proto = _opened(model)
    sizes = input_sizes(proto, batch=batch_size, shapes=named_shapes(proto, input_shape))
    contexts = contexts_of(proto, sizes, round_to)
    kinds = find_kinds(contexts, points, round_to, seed)
    timer = timer or RuntimeTimer(-(-repeat // _SWEEPS), threads)
    say = progress or (lambda what, done, of: None)
    steps = _SWEEPS * (len(contexts) + len(kinds))
    wholes: dict[int, WholeTime] = {}
    done = 0
    for _ in range(_SWEEPS):
        for i, around in enumerate(contexts):
            say("timing", done, steps)
            whole = timer.whole(around.model, around.feeds)
            wholes[i] = quieter_whole(wholes[i], whole) if i in wholes else whole
            done += 1
        for kind in kinds:
            say("timing", done, steps)
            kind.time(timer)
            done += 1
    say("timing", done, steps)
    about = {
        "machine": platform.processor() or platform.machine(),
        "threads": threads,
        "input": {name: list(shape) for name, shape in sizes.items()},
        "round_to": round_to,
        "measured": wholes[0].seconds,
    }
    return assemble(kinds, contexts, list(wholes.values()), about)


def _opened(model: ModelSource) -> onnx.ModelProto:
    source = plain_source(model)
    loaded = load_model(source, outside=True)
    check_model(loaded, source_name(source))
    return standard_form(loaded)
