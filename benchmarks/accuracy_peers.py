"""Other tools for `accuracy.py`: each takes a model and images, and gives a model back."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter

from onnx_esn.calibration import CalibrationSet

SETTINGS: dict[str, dict[str, list[str]]] = {
    "onnxruntime": {"ort-weights": ["W8", "W4"], "ort-static": ["W8A8"]},
    "aimet": {"aimet-adaround": ["W4 500", "W3 500"]},  # more takes hours on two cores
    "onnxsim": {"onnxsim": ["W8"]},
}
LABELS = {
    "ort-weights": "onnxruntime.quantization.quantize_static per channel, and then without the "
    "quantizers of activations",
    "ort-static": "onnxruntime.quantization.quantize_static per channel, activations in 8 bits",
    "aimet-adaround": "aimet-onnx AdaRound of the weights; bits, and iterations a layer",
    "onnxsim": "onnxsim.quantize_weight_only and correct_bias",
}
_MODULES = {"onnxruntime": "onnxruntime.quantization", "aimet": "aimet_onnx", "onnxsim": "onnxsim"}
_BATCH = 32
_OPSET = 21


def why_not(peer: str) -> str:
    """Why a tool cannot run here, in a line; empty if it can."""
    if peer not in _MODULES:
        return f"not known; there are: {', '.join(_MODULES)}"
    try:
        importlib.import_module(_MODULES[peer])
    except Exception as error:  # a broken installation may raise anything
        return f"{_MODULES[peer]} cannot be imported ({' '.join(str(error).split())[:120]})"
    return ""


def _feeds(images: CalibrationSet, size: int = _BATCH) -> Iterator[dict[str, Any]]:
    for batch in images.batches(size):
        yield batch.feeds


class _Reader:
    """What quantize_static reads from."""

    def __init__(self, images: CalibrationSet) -> None:
        self._feeds = _feeds(images)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _static(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    bits = int(setting[1])
    with tempfile.TemporaryDirectory() as folder:
        given, source, target = (Path(folder) / f"{name}.onnx" for name in ("in", "ready", "out"))
        onnx.save(_newer(model), given)
        quant_pre_process(str(given), str(source), skip_symbolic_shape=True)
        quantize_static(
            str(source),
            str(target),
            Reader(images),
            per_channel=True,
            weight_type=QuantType.QInt8 if bits == 8 else QuantType.QInt4,
            activation_type=QuantType.QUInt8,
            # Otherwise a ReLU goes whose effect the range of the quantizer behind it has.
            extra_options={"QDQKeepRemovableActivations": True},
        )
        return onnx.load(target)


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in opset 21, which has 4-bit weights, where it can be converted."""
    own = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if own >= _OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception:  # the converter raises what it likes
        return model


def _weights_only(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    """The same weights, without QuantizeLinear → DequantizeLinear on activations."""
    result = _static(model, images, setting, effort)
    nodes = result.graph.node
    instead: dict[str, str] = {}
    sources = {n.output[0]: n.input[0] for n in nodes if n.op_type == "QuantizeLinear"}
    gone = set()
    for i, node in enumerate(nodes):
        if node.op_type == "QuantizeLinear":
            gone.add(i)
        elif node.op_type == "DequantizeLinear" and node.input[0] in sources:
            gone.add(i)
            instead[node.output[0]] = sources[node.input[0]]
    outputs = {value.name for value in result.graph.output}
    kept = []
    for i, node in enumerate(nodes):
        if i in gone:
            if node.op_type == "DequantizeLinear" and node.output[0] in outputs:
                name = _origin(instead, node.output[0])
                kept.append(onnx.helper.make_node("Identity", [name], [node.output[0]]))
            continue
        node.input[:] = [_origin(instead, name) for name in node.input]
        kept.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(copies)
    del result.graph.value_info[:]
    return result


def _origin(instead: dict[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _aimet(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    from aimet_onnx import QuantizationSimModel, apply_adaround
    from aimet_onnx.common.defs import qtype

    feeds = list(_feeds(images))
    # Activations get quantizers too, which are never calibrated, and go in the end.
    sim = QuantizationSimModel(
        onnx.ModelProto.FromString(model.SerializeToString()),
        param_type=qtype.int(int(setting[1])),
        quant_scheme="tf_enhanced",
        dummy_input={name: value[:1] for name, value in feeds[0].items()},
    )
    apply_adaround(sim, feeds, num_iterations=int(setting.split()[1]))
    sim.fold_param_quantizers()
    return QuantizationSimModel.remove_quantizers(sim.model.model)


def _onnxsim(
    model: onnx.ModelProto, images: CalibrationSet, setting: str, effort: str
) -> onnx.ModelProto:
    import onnxsim

    feeds = list(_feeds(images.take(min(len(images), 256))))
    simple, _ = onnxsim.simplify(model)
    quantized = onnxsim.quantize_weight_only(simple)
    return onnxsim.correct_bias(simple, quantized, feeds)


METHODS: dict[str, Callable[..., onnx.ModelProto]] = {
    "ort-weights": _weights_only,
    "ort-static": _static,
    "aimet-adaround": _aimet,
    "onnxsim": _onnxsim,
}
