"""Everything onnx-esn raises on purpose.

OnnxEsnError
├── InputError              what came in is wrong; the message says what, where, how to mend it
│   ├── ModelError          the model file: missing, damaged, invalid, unsupported
│   ├── ImageSetError       the image or tensor set: empty, unreadable, of a shape that does not fit
│   ├── RecipeError         recipe.toml: unknown key, impossible value
│   ├── LabelsError         labels.csv or the labels of an .npz
│   ├── PlanError           a plan file that does not fit the model, or is not a plan
│   └── OptionError         options that contradict each other or the model
└── OperationError          the input was fine, the work failed
    ├── BudgetError         the cost asked for cannot be reached
    ├── InferenceError      onnxruntime could not load or run a model
    ├── VerificationError   a result did not pass its own check; nothing was written
    └── OutputError         the result could not be written

`cli.py` turns an `InputError` into exit code 2 and an `OperationError` into exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 8


def first_few(names: Sequence[str]) -> str:
    """Names for a message; of many the first ones, and how many more there are."""
    more = len(names) - _LISTED
    if more <= 1:
        return ", ".join(names)
    return ", ".join(names[:_LISTED]) + f" and {more} more"


class OnnxEsnError(Exception):
    """Base class of all errors raised on purpose."""


class InputError(OnnxEsnError):
    """What came in is wrong (exit code 2)."""


class ModelError(InputError):
    """The model is missing, damaged, invalid or uses something unsupported."""


class ImageSetError(InputError):
    """The calibration or evaluation set cannot be used."""


class RecipeError(InputError):
    """A preprocessing recipe has an unknown key or an impossible value."""


class LabelsError(InputError):
    """Labels are missing, malformed or do not fit the set."""


class PlanError(InputError):
    """A plan is malformed or does not fit the model."""


class OptionError(InputError):
    """Options contradict each other or the model."""


class OperationError(OnnxEsnError):
    """The input was fine, the work failed (exit code 1)."""


class BudgetError(OperationError):
    """The cost asked for cannot be reached."""


class InferenceError(OperationError):
    """onnxruntime could not load or run a model."""


class VerificationError(OperationError):
    """A result did not pass its own check; nothing was written."""


class OutputError(OperationError):
    """A result could not be written."""
