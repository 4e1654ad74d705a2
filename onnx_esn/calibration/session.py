"""Run a model: the only file of the project that imports onnxruntime."""

from __future__ import annotations

import functools
import re
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import InferenceError, ModelError
from onnx_esn.outside import any_outside, as_in_folder, brought_inside, common_folder, is_outside
from onnx_esn.temporary import new_folder, writing_temporary

from .exposure import expose
from .tensor_spec import TensorSpec, input_specs

__all__ = ["Session", "input_specs"]

# Protobuf cannot hold a larger message; such a model goes through a file.
PROTO_LIMIT = 2**31 - 1
# Its errors are raised, so its own copy of them on stderr would only repeat them.
_FATAL_ONLY = 4
_SMALL = 1 << 26


class Session:
    """A model loaded into onnxruntime (CPU), with errors of our own.

    Args:
        model: a model, or the path of one (external data is looked for beside it).
        outputs: tensors to give out instead of the model's outputs, internal ones too. Only the
            part of the model that they need is loaded.
        threads: threads for one operator; None leaves the choice to onnxruntime.
        optimize: False runs the graph as it is written, without fusing operators.
        lean: take as little memory as loading can: no operator fused, no weight laid out anew. To
            see whether a model loads, not to run it often.
        folding: False leaves nodes that read constants alone to the run.
        shared_memory: take memory from one pool of the process, for sessions that follow each
            other: fresh memory from the system costs more than the arithmetic on it.
        trace: a path without ending: note the time of each kernel in a file that begins so, until
            `end_trace`.

    Raises:
        ModelError: no such file, not an ONNX file, weights in an external file that is not known,
            no tensor of a name in ``outputs``.
        InferenceError: onnxruntime refuses the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | Path,
        *,
        outputs: Sequence[str] | None = None,
        threads: int | None = None,
        optimize: bool = True,
        shared_memory: bool = False,
        lean: bool = False,
        folding: bool = True,
        trace: str | Path | None = None,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.use_deterministic_compute = True
        options.intra_op_num_threads = threads or 0
        # Idle threads that spin would take the cores from decoding and from other sessions.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if lean:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False
        if trace is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(trace)
        if lean or not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if shared_memory:
            _register_pool()
            options.add_session_config_entry("session.use_env_allocators", "1")
        self.name = _name(model)
        payload, folder = self._payload(model, outputs)
        # To say where a NaN comes from; a large one is not held for that.
        small = isinstance(payload, bytes) and len(payload) < _SMALL
        self.source = model if small or not isinstance(model, onnx.ModelProto) else None
        """What was given, whole, where it is a path or small."""
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
        try:
            self._session = ort.InferenceSession(
                payload,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[] if folding else ["ConstantFolding"],
            )
        except Exception as error:
            raise InferenceError(
                f"onnxruntime cannot load {self.name}: {_first_line(error)}{_hint(error)}"
            ) from error
        self.inputs = tuple(_spec(arg) for arg in self._session.get_inputs())
        self.outputs = tuple(_spec(arg) for arg in self._session.get_outputs())

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs (those in ``names``, or all) for one batch of feeds.

        Raises:
            InferenceError: onnxruntime cannot run the model on these feeds.
        """
        wanted = [spec.name for spec in self.outputs] if names is None else list(names)
        try:
            values = self._session.run(wanted, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{key} {np.shape(value)}" for key, value in feeds.items())
            raise InferenceError(
                f"onnxruntime cannot run {self.name} on {shapes}: {_first_line(error)}"
            ) from error
        # An input that is an output too comes back as it is, and onnxruntime 1.23 lets go of it.
        found = zip(wanted, values, strict=True)
        return {name: np.array(v) if name in feeds else v for name, v in found}

    def end_trace(self) -> Path:
        """Stop noting times; the file that has them."""
        return Path(self._session.end_profiling())

    def _payload(
        self, model: onnx.ModelProto | str | Path, outputs: Sequence[str] | None
    ) -> tuple[bytes | str, Path | None]:
        """What onnxruntime loads, and the folder of its external data."""
        if isinstance(model, onnx.ModelProto):
            if any(
                onnx.external_data_helper.uses_external_data(t) and not is_outside(t)
                for t in model.graph.initializer
            ):
                raise ModelError(
                    "weights of the model are in an external file that was not loaded; pass the "
                    "path of the model, or load it with its external data"
                )
            if outputs is not None and list(outputs) != [x.name for x in model.graph.output]:
                model = expose(model, outputs)
            return self._serialize(model)
        path = Path(model).expanduser()
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        if outputs is None:
            return str(path), None
        try:
            loaded = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own, or the system's
            raise ModelError(f"{path}: is not a readable ONNX file ({error})") from error
        payload, folder = self._serialize(expose(loaded, outputs))
        return payload, folder or path.parent

    def _serialize(self, model: onnx.ModelProto) -> tuple[bytes | str, Path | None]:
        place = common_folder(model)
        if place is not None:
            model = as_in_folder(model, place)
        elif any_outside(model):
            model = brought_inside(model)
        try:
            payload = model.SerializeToString()
            if len(payload) <= PROTO_LIMIT:
                return payload, place
        except Exception:  # which one depends on protobuf's version; saving will tell
            pass
        folder = new_folder()
        # onnxruntime may map the file into memory: it must live as long as the session.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = folder / "model.onnx"
        # Saving moves the weights out of the model it is given, so it gets a copy.
        copy = expose(model, [value.name for value in model.graph.output])
        with writing_temporary():
            onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin")
        return str(path), None


@functools.cache
def _register_pool() -> None:
    """Create the pool that sessions with ``shared_memory`` use; it grows by what is asked for."""
    import onnxruntime as ort

    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, 1, -1, -1))


def _name(model: onnx.ModelProto | str | Path) -> str:
    if isinstance(model, onnx.ModelProto):
        return f"the model '{model.graph.name}'" if model.graph.name else "the model"
    return str(model)


def _spec(arg: Any) -> TensorSpec:
    """From onnxruntime's description, such as ``tensor(float)``."""
    kind = re.fullmatch(r"tensor\((\w+)\)", arg.type)
    try:
        element = onnx.TensorProto.DataType.Value(kind.group(1).upper() if kind else "")
    except ValueError:
        return TensorSpec(arg.name, np.dtype(object), ())
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))
    return TensorSpec(arg.name, dtype, tuple(_dims(arg.shape)))


def _dims(shape: Sequence[int | str | None]) -> Iterator[int | str | None]:
    for dim in shape:
        yield dim if isinstance(dim, str) or (isinstance(dim, int) and dim > 0) else None


def _hint(error: Exception) -> str:
    """What to do where a kernel is missing: bfloat16 has next to none."""
    if "NOT_IMPLEMENTED" not in str(error) and "Could not find an implementation" not in str(error):
        return ""
    return (
        "; its CPU provider does not have this operator in this type and version: what needs no "
        "images works, for the rest convert the model to float32 first"
    )


def _first_line(error: Exception) -> str:
    """What onnxruntime said, without its prefixes and the paths of its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ .*?\)(?: const)? ", "", text)
    return text if len(text) <= 400 else text[:400] + "…"
