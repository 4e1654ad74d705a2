"""The result of an evaluation as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx_esn.calibration import Latency
from onnx_esn.numerics.agreement import Agreement
from onnx_esn.passes.inspecting.result import json_ready

SCHEMA = "onnx-esn/evaluation/1"


@dataclass(frozen=True)
class OutputAgreement:
    """How well one output agrees with the reference's output of that name.

    Attributes:
        output: name of the output.
        agreement: the figures, or None where the two do not compare.
        reason: why they do not compare, or "".
    """

    output: str
    agreement: Agreement | None
    reason: str = ""


@dataclass(frozen=True)
class Accuracy:
    """Share of samples whose largest output is at the label; all figures are shares (0..1).

    Attributes:
        value: the accuracy.
        error: its standard error; None for a single sample.
        difference: mean over samples of (right here) − (right in the reference).
        difference_error: standard error of that paired difference, which is smaller than that of
            two independent accuracies; None for a single sample.
    """

    value: float
    error: float | None
    difference: float
    difference_error: float | None


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model.

    Attributes:
        name: the file's name, or the name given.
        macs: multiply-accumulates for one sample (Conv, ConvTranspose, Gemm, MatMul with weights).
        parameters: weights of those layers.
        esn_prime: ESN'_d in MAC·bit.
        mean_bits: ESN'_d / MACs: mean bits per MAC; None without MACs.
        file_bytes: size on disk with external data; of a model in memory, its serialized size.
        latency: wall time of one run on one sample, or None where it was not asked for.
        outputs: agreement with the reference, for each output.
        headline: the first classifier output that compares, else the first that does; None if
            none does.
        accuracy: where labels are known and there is a classifier output.
    """

    name: str
    macs: int
    parameters: int
    esn_prime: float
    mean_bits: float | None
    file_bytes: int
    latency: Latency | None
    outputs: tuple[OutputAgreement, ...]
    headline: OutputAgreement | None
    accuracy: Accuracy | None

    @property
    def agreement(self) -> Agreement | None:
        """Agreement of the headline output."""
        return None if self.headline is None else self.headline.agreement


@dataclass(frozen=True)
class Comparison:
    """Models side by side, on the same samples.

    Attributes:
        models: one for each model, in the order given; a reference that is not among them is
            put first.
        reference: index in ``models`` of the one that the others are compared with.
        images: name of the set.
        samples: number of samples.
        latency_batch: samples in the batch that was timed, or None.
    """

    models: tuple[Evaluation, ...]
    reference: int
    images: str
    samples: int
    latency_batch: int | None = None

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; infinities and NaN become null (docs/json.md says where they can occur)."""
        document = {
            "schema": SCHEMA,
            "images": self.images,
            "samples": self.samples,
            "reference": self.models[self.reference].name,
            "latency_batch": self.latency_batch,
            "models": [_model(model) for model in self.models],
        }
        plain: dict[str, Any] = json_ready(document)
        return plain


def _model(model: Evaluation) -> dict[str, Any]:
    return {
        "name": model.name,
        "macs": model.macs,
        "parameters": model.parameters,
        "esn_prime": model.esn_prime,
        "mean_bits": model.mean_bits,
        "file_bytes": model.file_bytes,
        "latency": None if model.latency is None else _latency(model.latency),
        "agreement": None if model.headline is None else _output(model.headline),
        "accuracy": None if model.accuracy is None else _accuracy(model.accuracy),
        "outputs": [_output(output) for output in model.outputs],
    }


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "median_ms": latency.median_ms,
        "p10_ms": latency.p10,
        "p90_ms": latency.p90,
        "ratio": latency.ratio,
    }


def _output(output: OutputAgreement) -> dict[str, Any]:
    if output.agreement is None:
        return {"output": output.output, "reason": output.reason}
    figures = output.agreement
    return {
        "output": output.output,
        "top1": figures.top1,
        "cosine": figures.cosine,
        "snr_db": figures.snr_db,
        "kl": figures.kl,
        "normalized_error": figures.normalized_error,
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "value": accuracy.value,
        "error": accuracy.error,
        "difference": accuracy.difference,
        "difference_error": accuracy.difference_error,
    }
