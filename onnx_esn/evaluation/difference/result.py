"""The difference of two models: a document, and a limit to hold it against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onnx_esn.errors import OptionError, VerificationError

from .changes import Changes
from .document import to_document


@dataclass(frozen=True)
class Difference(Changes):
    """What differs between two models.

    Attributes:
        before: figures of the first model.
        after: figures of the second model.
        nodes: nodes that one model lacks or that differ, in graph order.
        tensors: stored tensors that one model lacks or that differ.
        layers: every layer, in graph order; those of the second model only come last.
        settings: what differs about the models as a whole.
        outputs: agreement of the outputs; None without images.
        notes: what could not be compared, and what was assumed.
    """

    def require(self, max_divergence: float) -> None:
        """Raise where the outputs diverge by more than a limit.

        Raises:
            OptionError: the outputs were not compared, or the limit is not a number from 0 on.
            VerificationError: they diverge by more.
        """
        check_limit(max_divergence, self.outputs)
        assert self.outputs is not None
        found = self.outputs.divergence
        if not found <= max_divergence:
            why = next((f" ({o.output}: {o.reason})" for o in self.outputs.outputs if o.reason), "")
            raise VerificationError(
                f"the outputs of {self.after.name} diverge from those of {self.before.name} by "
                f"{found:.4g}{why}, more than the {max_divergence:g} allowed"
            )

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document; docs/json.md has its fields."""
        return to_document(self)


def check_limit(max_divergence: float | None, images: object) -> None:
    """Check a limit on the divergence before anything is run; None is no limit.

    Raises:
        OptionError: it is not a number from 0 on, or there are no images to measure it on.
    """
    if max_divergence is None:
        return
    if math.isnan(max_divergence) or max_divergence < 0:
        raise OptionError(
            f"a divergence of at most {max_divergence:g} makes no sense; give 0 or more"
        )
    if images is None:
        raise OptionError("the divergence of the outputs is measured on images; give some")
