"""The last step of `quantize` and `compress`: how the result is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.formats.activations_grid import KINDS
from onnx_esn.formats.storage import file_bytes
from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.passes.activations.quantizing import QuantizeActivations
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.export import Export
from onnx_esn.passes.setting import Setting
from onnx_esn.plans import ActivationRange, ActivationRanges, Plan, QuantizationPlan

NONE = "none"


@dataclass(frozen=True)
class Storing:
    """Write the weights in a format, or quantize the activations too, which implies `qdq`.

    Attributes:
        format, keep_opset, opset: see `Export`.
        activations: kind of `QuantizeActivations`, or "none".
        calibrator: see there.

    Raises:
        OptionError: an option is unknown, or two contradict each other.
    """

    format: str = "fake"
    keep_opset: bool = False
    opset: int | None = None
    activations: str = NONE
    calibrator: str | None = None

    def __post_init__(self) -> None:
        if self.activations == NONE:
            if self.calibrator is not None:
                raise OptionError("a calibrator goes with activations (--activations)")
            self._export()
            return
        if self.activations not in KINDS:
            known = ", ".join((NONE, *KINDS))
            raise OptionError(f"activations {self.activations!r} are not known; there are: {known}")
        if self.format == "qonnx":
            raise OptionError("activations are stored as QDQ: leave --format out, or give qdq")
        if self.opset is not None:
            raise OptionError("with --activations the operator set follows: leave --opset out")

    @property
    def nothing(self) -> bool:
        """Whether the model stays as it is."""
        return self.format == "fake" and self.activations == NONE

    def most_bits(self, quantizer: str) -> int:
        """Bits that a filter can have without being rounded again when it is stored."""
        narrow = self.activations not in (NONE, "int16") and quantizer == MID_RISE.name
        return MAX_BITS - 1 if narrow else MAX_BITS

    def known(self, plan: object) -> ActivationRanges | None:
        """The ranges that a plan has of these activations, if any."""
        found = plan.activations if isinstance(plan, QuantizationPlan) else None
        return found if found is not None and found.kind == self.activations else None

    def check(self, images: object, plan: object = None) -> None:
        """Raise `OptionError` where images are needed and there are none."""
        if self.activations != NONE and images is None and self.known(plan) is None:
            found = plan.activations if isinstance(plan, QuantizationPlan) else None
            if found is not None:
                raise OptionError(
                    f"the plan's ranges are for {found.kind} activations: give that, or images "
                    "(--images)"
                )
            raise OptionError("--activations needs images, to see how large they get (--images)")

    def step(self, setting: Setting, plan: object = None) -> Export | _Activations:
        """The pass.

        Args:
            setting: only activations need its images.
            plan: that of the weights; may know the ranges of the activations.
        """
        if self.activations == NONE:
            return self._export()
        return _Activations(self.quantize_activations(setting, plan))

    def learned(self, setting: Setting) -> QuantizeActivations | None:
        """The pass whose ranges can be learned: of 8 bits or fewer; None where there is none.

        It has no images yet: who learns has a part of them at a time.
        """
        if self.activations == NONE or KINDS[self.activations].symmetric:
            return None
        return self.quantize_activations(replace(setting, images=None))

    def quantize_activations(self, setting: Setting, plan: object = None) -> QuantizeActivations:
        """The pass that does it; arguments as of `step`."""
        known = self.known(plan)
        return QuantizeActivations(
            setting.images,
            kind=self.activations,
            calibrator=self.calibrator,
            ranges={} if known is None else known.by_tensor(),
            only=setting.only,
            exclude=setting.exclude,
            keep_opset=self.keep_opset,
            batch_size=setting.walk.batch_size,
            threads=setting.walk.threads,
        )

    def _export(self) -> Export:
        return Export(self.format, keep_opset=self.keep_opset, opset=self.opset)


@dataclass(frozen=True)
class _Activations:
    """`QuantizeActivations`, which also says what the file weighs; its plan has just the ranges."""

    quantize: QuantizeActivations

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        result = self.quantize(model)
        details = {
            **result.details,
            "bytes_before": file_bytes(model),
            "bytes_after": file_bytes(result.model),
        }
        ranges = tuple(ActivationRange(n, *pair) for n, pair in result.details["ranges"].items())
        plan = QuantizationPlan((), activations=ActivationRanges(self.quantize.kind, ranges))
        return replace(result, details={"integers": details}, plan=plan)


def with_ranges(plan: Plan | None, stored: Plan | None) -> Plan | None:
    """The plan of the weights with the ranges of the activations that were stored, if any."""
    if isinstance(plan, QuantizationPlan) and isinstance(stored, QuantizationPlan):
        return replace(plan, activations=stored.activations)
    return plan
