"""Recalibrate: bring the channels of a compressed model back to where they were, on images alone.

The last layers, such as the one that makes the logits, have a statistic for each image only, not
for each position, and nothing after them averages its noise out. With 512 images and 10 classes
matching them helps, with 200 images and 1,000 classes it hurts; so both are tried, and the held-out
images decide. Without held-out images they are left as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source, input_specs, open_set
from onnx_esn.calibration.staged import MEMORY_LIMIT
from onnx_esn.calibration.streamed import stream_moments
from onnx_esn.errors import OptionError
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.norms.points import NormPoint, final_layers
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.correcting.moment_rules import (
    matched_affine,
    matched_statistics,
    pick,
    reestimated_statistics,
)
from onnx_esn.passes.correcting.norm_choice import Method, choose_points
from onnx_esn.passes.correcting.norm_correction import Rule, apply_corrections, measure_corrections
from onnx_esn.passes.correcting.norm_pairing import Pair
from onnx_esn.passes.correcting.output_divergence import output_divergences

log = logging.getLogger(__name__)

# With fewer samples a part of them says nothing about the others.
LEAST_FOR_GATE = 10


@dataclass(frozen=True)
class Recalibrate:
    """Correct BatchNormalization statistics, or filters where BatchNormalization was folded.

    Attributes:
        images: a calibration set, or what `open_set` takes.
        reference: the model this one was made from, or its path.
        method: "match" or "reestimate" (see `moment_rules`); None: match with a reference.
        recipe: preprocessing of images.
        batch_size: samples in one run; the result does not depend on it.
        held_out: share of the set on which the result must agree better with the reference than
            before; else the model is returned as it was.
        memory_limit: bytes of tensors kept in memory between stages.
        threads: threads for one operator.
        progress: called with what is done ("reference", "statistics"), how much of it, of how much.
    """

    images: Source
    reference: onnx.ModelProto | str | Path | None = None
    method: Method | None = None
    recipe: str | Path | Recipe | None = None
    batch_size: int = 64
    held_out: float = 0.2
    memory_limit: int = MEMORY_LIMIT
    threads: int | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the recalibrated model.

        Raises:
            OptionError: match without a reference, a reference that does not fit, or nothing that
                could be corrected.
            ImageSetError, RecipeError: the images.
            VerificationError: a statistic is NaN or infinite; names the layer.
            OperationError: the model does not run, or not in stages.
        """
        reference = None if self.reference is None else load_model(self.reference, outside=True)
        method = self._method(reference)
        points, pairs, skipped = choose_points(model, reference, method)
        images = open_set(self.images, input_specs(model), recipe=self.recipe)
        gated = reference is not None and len(images) >= LEAST_FOR_GATE
        measured, held = images.split(self.held_out) if gated else (images, None)
        rules = self._rules(points, pairs, reference, measured, method)
        corrections = measure_corrections(
            model,
            points,
            rules,
            measured,
            batch_size=self.batch_size,
            memory_limit=self.memory_limit,
            threads=self.threads,
            progress=self.progress and partial(self.progress, "statistics"),
        )
        last = final_layers(model, points)
        inner = [point for point in points if point.output not in last] or points
        details: dict[str, Any] = {
            "method": method,
            "points": len(inner),
            "images": len(measured),
            "held_out_images": 0 if held is None else len(held),
            "divergence_before": None,
            "divergence_after": None,
            "accepted": True,
        }
        choices = [inner] if held is None or len(inner) == len(points) else [inner, points]
        results = [apply_corrections(model, choice, corrections) for choice in choices]
        best = 0
        if reference is None or held is None:
            why = "no reference" if reference is None else f"fewer than {LEAST_FOR_GATE} images"
            details["gate"] = f"not checked on held-out images: {why}"
        else:
            before, *after = output_divergences(
                reference, [model, *results], held, batch_size=self.batch_size, threads=self.threads
            )
            best = after.index(min(after))
            details["divergence_before"], details["divergence_after"] = before, after[best]
            details["accepted"] = after[best] < before
            details["gate"] = "divergence from the reference on held-out images " + (
                "fell" if details["accepted"] else "did not fall: the model is as it was"
            )
            log.info("recalibration: %s: %.4g, %s", details["gate"], before, after)
        if not details["accepted"]:
            return PassResult(copied(model), False, tuple(skipped), details=details)
        details["points"] = len(choices[best])
        chosen = {point.output for point in choices[best]}
        why = "matching it did not help on held-out images" if held else "nothing to check it on"
        skipped += [
            Skipped(p.name, f"a layer without another one after it: {why}")
            for p in points
            if p.output not in chosen
        ]
        return PassResult(results[best], True, tuple(skipped), details=details)

    def _method(self, reference: onnx.ModelProto | None) -> Method:
        method = self.method or ("match" if reference is not None else "reestimate")
        if method not in ("match", "reestimate"):
            raise OptionError(f"method {method!r} is neither match nor reestimate")
        if method == "match" and reference is None:
            raise OptionError("method match needs the reference model (--reference)")
        return method

    def _rules(
        self,
        points: list[NormPoint],
        pairs: Mapping[str, Pair],
        reference: onnx.ModelProto | None,
        images: CalibrationSet,
        method: Method,
    ) -> dict[str, Rule]:
        """By `NormPoint.output`, with the moments of the reference measured where it takes them."""
        moments = {}
        if reference is not None and pairs:
            moments = stream_moments(
                reference,
                [pair.point for pair in pairs.values()],
                images.for_inputs(input_specs(reference)),
                batch_size=self.batch_size,
                memory_limit=self.memory_limit,
                threads=self.threads,
                progress=self.progress and partial(self.progress, "reference"),
            )
        rules: dict[str, Rule] = {}
        for point in points:
            pair = pairs.get(point.output)
            if pair is None:
                rules[point.output] = reestimated_statistics
                continue
            own = pick(moments[pair.point.node], pair.kept)
            if pair.norm is None:
                rules[point.output] = partial(matched_affine, point, own)
            else:
                rules[point.output] = partial(matched_statistics, own, pair.norm)
        return rules
