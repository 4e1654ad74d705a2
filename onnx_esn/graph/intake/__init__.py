"""What a model has to be before anything else looks at it.

onnx's checker knows the standard; it does not know what a hostile file costs to read. These checks
take one walk over the model, follow no recursion, and allocate nothing that the file does not hold:

- `external`: weights in other files, which have to lie in the model's folder;
- `tensors`: types, sizes and bytes of what is stored;
- `names`: text;
- `nesting`: bodies in bodies, and functions that call functions;
- `control`: bodies that fit the node around them;
- `wiring`: who makes what is read;
- `operator_sets`: versions, and operators that are this project's own notes;
- `declared`: types and sizes of inputs;
- `weights`: layers whose weight cannot be one.

Every refusal is a `ModelError` of one line.
"""

from __future__ import annotations

import onnx

from onnx_esn.graph.intake.control import check_control
from onnx_esn.graph.intake.declared import check_declared
from onnx_esn.graph.intake.names import check_names
from onnx_esn.graph.intake.nesting import check_functions, check_nesting
from onnx_esn.graph.intake.operator_sets import check_operator_sets
from onnx_esn.graph.intake.tensors import check_tensors
from onnx_esn.graph.intake.weights import check_weights
from onnx_esn.graph.intake.wiring import check_wiring


def check_intake(model: onnx.ModelProto, name: str) -> None:
    """Refuse what no later step could deal with, in an order that says the cause first.

    Args:
        model: the model, external data loaded or left outside.
        name: its file, for messages.

    Raises:
        ModelError: what is wrong, where, and how to mend it.
    """
    check_nesting(model, name)
    check_names(model, name)
    check_operator_sets(model, name)
    check_functions(model, name)
    check_control(model, name)
    check_tensors(model, name)
    check_declared(model, name)
    check_wiring(model, name)
    check_weights(model, name)
