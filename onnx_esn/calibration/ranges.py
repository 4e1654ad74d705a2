"""Ranges of activations, by onnxruntime's own calibrators: min-max, entropy, percentile.

And by squared error ("mse"), over the histogram that onnxruntime's collector gathers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnx_esn.errors import InferenceError, OnnxEsnError, OptionError
from onnx_esn.numerics.clipping import best_range
from onnx_esn.temporary import temporary_folder

from .calibration_set import Batch, CalibrationSet
from .exposure import expose
from .prefetch import prefetch
from .session import Session

log = logging.getLogger(__name__)

Range = tuple[float, float]
_SMALL = 1 << 13  # values of a stored tensor that the calibrators may see

# With onnxruntime's own settings: given more bins than its 128, the entropy calibrator cuts so much
# off that networks fail (measured in docs/concepts/activations.md).
CALIBRATORS = ("minmax", "entropy", "percentile", "mse")


def tensor_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: CalibrationSet,
    *,
    calibrator: str = "minmax",
    percentile: float | None = None,
    steps: int = 255,
    symmetric: bool = False,
    batch_size: int = 64,
    threads: int | None = None,
) -> dict[str, Range]:
    """The range (lowest, highest) of each tensor, as a calibrator finds it.

    Args:
        model: the model.
        tensors: float32 tensors of its main graph; its inputs count as such.
        images: a set for this model.
        calibrator: "minmax": the extremes. "entropy": the range whose 128 levels lose the
            least information (KL divergence).
            "percentile": the range that holds `percentile` of the values.
            "mse": the range of least squared error at so many levels.
        percentile: for that calibrator, in percent; None: 99.999.
        steps, symmetric: of the grid, for "mse": levels less one, and whether 0 is in the middle.
        batch_size: samples at once; the last three calibrators hold all tensors of a batch.
        threads: threads for one operator; None leaves the choice to onnxruntime.

    Raises:
        OptionError: an unknown calibrator, or an impossible percentile.
        ModelError: a tensor is not in the main graph.
        InferenceError: the model does not run, a calibrator fails, or a tensor holds an infinity.
    """
    settings = _settings(calibrator, percentile)
    if not tensors:
        return {}
    with temporary_folder() as folder:
        try:
            collector = _collector(calibrator, settings, model, tensors, folder, threads)
            # One batch at a time: onnxruntime would otherwise hold the outputs of all of them.
            with closing(prefetch(images.batches(batch_size))) as batches:
                for batch in batches:
                    with _silent():
                        collector.collect_data(_Reader(batch))
            with _silent():
                found = collector.compute_data()
            if calibrator == "mse":
                histograms = collector.collector.histogram_dict
                return {n: _least_error(n, histograms[n], steps, symmetric) for n in tensors}
        except OnnxEsnError:
            raise
        except Exception as error:  # whatever the calibrators trip over
            raise InferenceError(
                f"onnxruntime's {calibrator} calibrator failed ({type(error).__name__}: {error}); "
                f"try another one"
            ) from error
        ranges = {name: _pair(name, found[name].range_value) for name in tensors}
        del collector  # its session may map files of the folder
    return ranges


def _least_error(name: str, histogram: tuple[Any, ...], steps: int, symmetric: bool) -> Range:
    counts, edges, least, most, _ = histogram
    low, high = _pair(name, (least, most))
    centres = (np.asarray(edges[:-1], np.float64) + np.asarray(edges[1:], np.float64)) / 2
    return best_range(counts, centres, low, high, steps, symmetric=symmetric)


def _settings(calibrator: str, percentile: float | None) -> dict[str, Any]:
    if calibrator not in CALIBRATORS:
        known = ", ".join(CALIBRATORS)
        raise OptionError(f"calibrator {calibrator!r} is not known; there are: {known}")
    if percentile is None:
        return {}
    if calibrator != "percentile":
        raise OptionError(f"a percentile does not go with the {calibrator} calibrator")
    if not 50 < percentile <= 100:
        raise OptionError(f"percentile {percentile} must lie above 50 and not above 100")
    return {"percentile": percentile}


class _Reader:
    """A `CalibrationDataReader` over one batch."""

    def __init__(self, batch: Batch) -> None:
        self._feeds: dict[str, npt.NDArray[Any]] | None = batch.feeds

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        feeds, self._feeds = self._feeds, None
        return feeds


class _Runner:
    """What a calibrator asks of its `InferenceSession`, with errors of our own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_outputs(self) -> Sequence[Any]:
        return self._session.outputs

    def get_inputs(self) -> Sequence[Any]:
        return self._session.inputs

    def run(self, names: None, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return list(self._session.run(feeds, names).values())


def _collector(
    calibrator: str,
    settings: Mapping[str, Any],
    model: onnx.ModelProto,
    tensors: Sequence[str],
    folder: Path,
    threads: int | None,
) -> Any:
    """The calibrator over exactly these tensors, its session loaded as ours are."""
    from onnxruntime.quantization.calibrate import (
        EntropyCalibrater,
        MinMaxCalibrater,
        PercentileCalibrater,
    )

    kinds = {
        "minmax": MinMaxCalibrater,
        "entropy": EntropyCalibrater,
        "percentile": PercentileCalibrater,
        "mse": PercentileCalibrater,  # for its histograms, which are of the values with their signs
    }
    source, augmented = folder / "model.onnx", folder / "augmented.onnx"
    cut = _cut(model, tensors)
    light, stored = _without_weights(cut)
    onnx.save(light, source)
    made = kinds[calibrator](source, augmented_model_path=str(augmented), **settings)
    infos = {name: _info(name) for name in tensors}
    made.select_tensors_to_calibrate = lambda _: (dict.fromkeys(tensors), infos)
    made.augment_graph()
    inputs = [info.name for info in cut.graph.input]
    whole = _with_weights(onnx.load(augmented), stored, inputs)
    made.infer_session = _Runner(Session(whole, threads=threads))
    return made


def _cut(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """What the tensors need, with their types."""
    cut = expose(model, tensors)
    for name in [o.name for o in cut.graph.output]:  # min-max takes whole outputs, too: only one
        if name not in {i.name for i in cut.graph.input}:
            cut.graph.value_info.append(_info(name))
    del cut.graph.output[:]
    cut.graph.output.append(_info(tensors[-1]))
    return cut


def _without_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A model whose large weights are inputs, and these: the calibrators write it, and read it."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    known = {info.name for info in light.graph.input}
    large = [t for t in model.graph.initializer if math.prod(t.dims) > _SMALL]
    light.graph.initializer.extend(
        t for t in model.graph.initializer if math.prod(t.dims) <= _SMALL
    )
    light.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
        for t in large
        if t.name not in known
    )
    return light, large


def _with_weights(
    model: onnx.ModelProto, weights: Sequence[onnx.TensorProto], inputs: Sequence[str]
) -> onnx.ModelProto:
    """The model, changed: it stores the weights, and has these inputs alone."""
    kept = [info for info in model.graph.input if info.name in inputs]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(weights)
    return model


def _info(name: str) -> onnx.ValueInfoProto:
    """A float32 tensor of a shape that is not known."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The calibrators print their progress."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        yield
    for line in said.getvalue().splitlines():
        log.debug("%s", line)


def _pair(name: str, found: tuple[Any, Any]) -> Range:
    low, high = (float(np.asarray(x, dtype=np.float64).reshape(-1)[0]) for x in found)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InferenceError(f"tensor '{name}' holds an infinity, or only NaNs, on these images")
    return low, high
