"""Passes for an Olive workflow (https://github.com/microsoft/Olive): prune, quantize, compress.

Olive finds a pass by the package config that a run is given: `package_config` makes one, and
`examples/olive_passes.json` is one for its command line. Needs the package `olive-ai`.
"""

from __future__ import annotations

import glob
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from olive.common.config_utils import ParamCategory, validate_config
from olive.common.utils import format_data
from olive.data.config import DataConfig
from olive.exception import OlivePassError
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import PassConfigParam
from olive.search.search_parameter import Categorical, SpecialParamValue

import onnx_esn
from onnx_esn.errors import ImageSetError, InputError, OperationError, OptionError

Params = dict[str, PassConfigParam]
# Read here; all other parameters are arguments of the verb.
_OWN = ("data_config", "max_samples", "external_data")


def package_config() -> dict[str, Any]:
    """What `olive.workflows.run(…, package_config=…)` takes: Olive's own passes and these."""
    config: dict[str, Any] = OlivePackageConfig.load_default_config().model_dump(mode="json")
    everywhere = {"supported_providers": ["*"], "supported_accelerators": ["*"]}
    for cls in (OnnxEsnPrune, OnnxEsnQuantize, OnnxEsnCompress):
        path = f"{cls.__module__}.{cls.__qualname__}"
        config["passes"][cls.__name__] = {"module_path": path, **everywhere}
    return config


class _VerbPass(Pass):
    """A verb of onnx-esn on an ONNX model; what could not be met fails this point of a search."""

    @abstractmethod
    def _changed(self, source: str, options: dict[str, Any]) -> onnx.ModelProto:
        """The model that the verb makes of the file `source`."""

    def _run_for_config(
        self, model: ONNXModelHandler, config: Any, output_model_path: str
    ) -> ONNXModelHandler:
        """Write what the verb makes of the model; weights outside its file stay outside.

        Raises:
            ValueError: an option, the images or the model will not do.
            OlivePassError: the work failed, for example since a budget cannot be met.
        """
        if not isinstance(model, ONNXModelHandler):
            raise ValueError(
                f"{type(self).__name__} takes ONNX models, not a {type(model).__name__}; convert "
                "it first (Olive's pass OnnxConversion)"
            )
        source = model.model_path
        target = Path(resolve_onnx_path(output_model_path, Path(source).name))
        given = {
            name: value
            for name in config.__class__.model_fields
            if (value := getattr(config, name)) not in (None, SpecialParamValue.IGNORED)
        }
        own = {name: given.pop(name) for name in _OWN if name in given}
        try:
            if "data_config" in own:
                if "images" in given:
                    raise OptionError("give one of images and data_config, not both")
                given["images"] = _samples(own["data_config"], model, own["max_samples"])
            changed = self._changed(source, given)
            onnx_esn.write_model(changed, target, source, external_data=own.get("external_data"))
        except InputError as error:
            raise ValueError(str(error)) from error
        except OperationError as error:
            raise OlivePassError(str(error)) from error
        if any(target.parent.glob(f"{glob.escape(target.name)}.*.data")):
            return ONNXModelHandler(str(target.parent), onnx_file_name=target.name)
        return ONNXModelHandler(str(target))


class OnnxEsnPrune(_VerbPass):
    """Remove filters, see `onnx_esn.prune`."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> Params:
        return {**_pruning(), **_common()}

    def _changed(self, source: str, options: dict[str, Any]) -> onnx.ModelProto:
        return onnx_esn.prune(source, **options).model


class OnnxEsnQuantize(_VerbPass):
    """Quantize weights filter by filter, see `onnx_esn.quantize`."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> Params:
        return {**_quantizing(), **_common()}

    def _changed(self, source: str, options: dict[str, Any]) -> onnx.ModelProto:
        return onnx_esn.quantize(source, **options).model


class OnnxEsnCompress(_VerbPass):
    """Prune and quantize for one budget, then annotate, see `onnx_esn.compress`."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> Params:
        return {**_pruning(), **_quantizing(), **_common()}

    def _changed(self, source: str, options: dict[str, Any]) -> onnx.ModelProto:
        if "images" not in options:
            raise OptionError("OnnxEsnCompress needs images, or a data_config")
        return onnx_esn.compress(source, latency=False, **options).model


def _pruning() -> Params:
    return {
        "ratio": _param(float, "Share of the filters to remove, 0 to 1."),
        "target_macs": _param(str | float, "MACs to reach, '50%' or absolute."),
        "criterion": _param(str, "Which filters go first; signal-norm by default."),
        "scope": _param(str, "Where filters compete: layer or global."),
        "round_to": _param(int, "Widths are multiples of this."),
        "min_width": _param(int, "Filters that a layer keeps at least."),
        "exact": _param(bool, "First remove what changes nothing."),
    }


def _quantizing() -> Params:
    return {
        "bits": _param(int, "Bits of each filter, 1 to 8."),
        "target_cost": _param(str | float, "Cost to reach (MAC x bit), '10%' or absolute."),
        "method": _param(str, "compensated, or nearest."),
        "effort": _param(str, "fast, balanced or thorough, for target_cost."),
        "format": _param(str, "fake: floats on the grid. qdq: integers. qonnx: Quant nodes."),
        "activations": _param(str, "none, uint8 … uint2, int8, int16: integers between layers."),
        "calibrator": _param(str, "minmax, percentile, entropy or mse, for activations."),
        "keep_opset": _param(bool, "Refuse formats that need a newer operator set."),
    }


def _common() -> Params:
    path = ParamCategory.PATH
    return {
        "images": _param(str | Path, "Folder of images, .npy or .npz.", category=path),
        "recipe": _param(str | Path, "How to read the images (TOML).", category=path),
        "data_config": _param(DataConfig | dict, "Olive's data in place of images."),
        "max_samples": PassConfigParam(
            type_=int, default_value=1024, description="How many to take of data_config."
        ),
        "only": _param(list[str], "Patterns of layers to change, no others."),
        "exclude": _param(list[str], "Patterns of layers to leave alone."),
        "views": _param(int, "Of each image, for statistics; None: 4 where they are few."),
        "batch_size": _param(int, "For running the images."),
        "threads": _param(int, "For running the images."),
        "external_data": _param(bool, "Weights in a file of their own; None: as in the input."),
    }


def _param(
    kind: Any, description: str, category: ParamCategory = ParamCategory.NONE
) -> PassConfigParam:
    """A parameter that may be left out; in a search, a list of values is tried one by one."""
    listed = kind in (int, float, bool, str, str | float)
    return PassConfigParam(
        type_=kind,
        category=category,
        description=description,
        search_defaults=Categorical([None]) if listed else None,
    )


def _samples(
    data_config: Any, model: ONNXModelHandler, most: int
) -> dict[str, np.ndarray[Any, Any]]:
    """The first samples of Olive's data, by input name, each ``N x …``; labels are not read."""
    container = validate_config(data_config, DataConfig).to_data_container()
    batches: list[dict[str, np.ndarray[Any, Any]]] = []
    count = 0
    for batch in container.create_dataloader():
        inputs = batch[0] if isinstance(batch, list | tuple) else batch
        batches.append(format_data(inputs, model.io_config))
        count += len(next(iter(batches[-1].values()), ()))
        if count >= most:
            break
    if not count:
        raise ImageSetError("data_config: no samples for the inputs of the model")
    return {name: np.concatenate([b[name] for b in batches])[:most] for name in batches[0]}
