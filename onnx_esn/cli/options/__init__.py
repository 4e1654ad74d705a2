"""The options of the command line: names, types and help texts, shared between the verbs."""

from onnx_esn.cli.options.comparing import max_divergence_option
from onnx_esn.cli.options.files import (
    external_option,
    model_argument,
    output_option,
    plan_options,
    report_option,
)
from onnx_esn.cli.options.images import (
    evaluation_option,
    images_options,
    labels_option,
    recipe_option,
    run_options,
    shape_option,
    views_option,
)
from onnx_esn.cli.options.layers import layers_options
from onnx_esn.cli.options.learning import learn_options
from onnx_esn.cli.options.pruning import granularity_option, prune_options, selection_options
from onnx_esn.cli.options.quantizing import (
    bits_options,
    effort_option,
    method_option,
    quantizer_option,
    requantize_option,
    rotate_option,
)
from onnx_esn.cli.options.storing import activation_options, convert_options, format_options
from onnx_esn.cli.options.sweeping import sweep_options

__all__ = [
    "activation_options",
    "bits_options",
    "convert_options",
    "effort_option",
    "evaluation_option",
    "external_option",
    "format_options",
    "granularity_option",
    "images_options",
    "labels_option",
    "layers_options",
    "learn_options",
    "max_divergence_option",
    "method_option",
    "model_argument",
    "output_option",
    "plan_options",
    "prune_options",
    "quantizer_option",
    "recipe_option",
    "report_option",
    "requantize_option",
    "rotate_option",
    "run_options",
    "selection_options",
    "shape_option",
    "sweep_options",
    "views_option",
]
