"""Teach a compressed model: block after block, then end to end.

Each block learns from what the blocks before it, learned already, send it, towards what the
reference has at its end. What is left then is learned on the outputs themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from onnx_esn.calibration import CalibrationSet, Session, input_specs
from onnx_esn.errors import OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.shapes import infer_facts
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.base import Skipped, copied
from onnx_esn.passes.learning.activation_intervals import ActivationIntervals
from onnx_esn.passes.learning.blocks import Block, find_blocks
from onnx_esn.passes.learning.choosing_targets import choose_targets
from onnx_esn.passes.learning.distillation import Distillation
from onnx_esn.passes.learning.examples import ArrayExamples, ImageExamples
from onnx_esn.passes.learning.learned import Learned
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.student import LearnedLayer
from onnx_esn.passes.learning.training_graph import Kind, Target
from onnx_esn.passes.learning.variations import varied

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
Arrays = dict[str, Array]

MEMORY_LIMIT = 2**30  # bytes of what goes into and comes out of one block


@dataclass(frozen=True)
class Taught:
    """What a `Teacher` found out.

    Attributes:
        shifts: by layer, (M,) added to its outputs.
        losses: by block (named by its last tensor) and for the whole (""), see `Distillation.run`.
        best: likewise, after how many epochs the loss was least.
        blocked: (node, reason) where no gradient goes through.
    """

    shifts: Mapping[str, Floats]
    losses: Mapping[str, list[float]]
    best: Mapping[str, int]
    blocked: tuple[tuple[str, str], ...]

    @property
    def notes(self) -> list[Skipped]:
        """Where nothing could be learned through."""
        return [Skipped(node, f"no gradient goes through: {why}") for node, why in self.blocked]

    def details(self, options: LearnOptions, verdict: Mapping[str, Any]) -> dict[str, Any]:
        """Figures for a report, `verdict` that of `judge`."""
        return {
            "learned_layers": len(self.shifts) if verdict["accepted"] else 0,
            "epochs": options.epochs,
            "losses": dict(self.losses),
            "best_epochs": dict(self.best),
            **verdict,
        }


@dataclass
class Teacher:
    """Changes `learned` so that the student comes close to the reference.

    Attributes:
        reference: the model whose tensors are wanted.
        student: what `make_student` made, with the names of the reference.
        layers: its layers.
        learned: what their filters are made of; changed in place.
        images: to learn from.
        held: images that choose the epochs that are kept.
        options: how to learn.
        rate: of the first steps, where the options say nothing.
        stops: after how many epochs to stop: the `best` of another run, instead of held-out images.
        activations: intervals of the student's tensors, which are changed too.
        shifts: by layer, (M,) added to its outputs so far.
    """

    reference: onnx.ModelProto
    student: onnx.ModelProto
    layers: Mapping[str, LearnedLayer]
    learned: Mapping[str, Learned]
    images: CalibrationSet
    held: CalibrationSet | None
    options: LearnOptions
    rate: float
    stops: Mapping[str, int] | None = None
    activations: ActivationIntervals | None = None
    shifts: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.activations is not None and self.options.block_epochs:
            raise OptionError("activations are learned end to end only: leave block_epochs out")
        self.rate = self.options.rate or self.rate
        specs = input_specs(self.student)
        self.images = self.images.for_inputs(specs)
        self.held = None if self.held is None else self.held.for_inputs(specs)
        for name, x in self.layers.items():
            self.shifts.setdefault(name, np.zeros(x.layer.filters))
        self.losses: dict[str, list[float]] = {}
        self.best: dict[str, int] = {}
        self.blocked: dict[tuple[str, str], None] = {}
        self.done, self.steps = 0, 0

    def run(self) -> Taught:
        """Teach.

        Raises:
            VerificationError: a loss is not finite.
            OperationError: a model does not run.
        """
        options = self.options
        (first,) = self.images.take(1).batches(1)
        batch = self.images.fixed_batch or min(options.batch_size, len(self.images))
        sizes = {name: (batch, *x.shape[1:]) for name, x in first.feeds.items()}
        each = options.block_epochs
        blocks = self._blocks(sizes) if each and not self.images.fixed_batch else []
        per_epoch = max(len(self.images) // batch, 1)
        copies = 2 if options.vary else 1
        self.steps = per_epoch * options.epochs
        if len(blocks) > 1:
            self.steps += per_epoch * copies * len(blocks) * each
            self._block_by_block(blocks, sizes)
        self._end_to_end()
        return Taught(self.shifts, self.losses, self.best, tuple(self.blocked))

    def _blocks(self, sizes: Mapping[str, tuple[int, ...]]) -> list[Block]:
        self.facts = infer_facts(self.student, sizes, Constants(self.student))
        theirs = infer_facts(self.reference, sizes, Constants(self.reference))
        mine = self.facts
        allowed = {
            name
            for name, shape in mine.shapes.items()
            if theirs.shapes.get(name) == shape and mine.types[name] == TensorProto.FLOAT
        }
        outputs = {x.slot.node: name for name, x in self.layers.items()}
        return find_blocks(self.student, mine, set(sizes), outputs, allowed)

    def _block_by_block(self, blocks: Sequence[Block], sizes: Mapping[str, Any]) -> None:
        """Learn each block on tensors that are kept in memory."""
        rng = np.random.default_rng([self.options.seed, 1 << 16])
        copies = 2 if self.options.vary else 1
        most = max(_bytes(self.facts, x.inputs) + _bytes(self.facts, x.outputs) for x in blocks)
        batch = next(iter(sizes.values()))[0]
        count = max(int(MEMORY_LIMIT / (most / batch)), batch)
        own = _collected(self.images.take(min(count, len(self.images))))
        if copies > 1:
            again = {name: varied(x, rng) for name, x in own.items()}
            own = {name: np.concatenate([x, again[name]])[:count] for name, x in own.items()}
        judging = None if self.held is None else _collected(self.held)
        images, now = own, own
        images_held, now_held = judging, judging
        for block in blocks:
            last = block is blocks[-1]
            targets = (
                choose_targets(self.reference, self.student, self.images)
                if last
                else [Target(name, 1.0, Kind.VALUES) for name in block.outputs]
            )
            targets = [t for t in targets if t.tensor in block.outputs]
            if not targets:
                return
            names = [t.tensor for t in targets]
            teacher = Session(self.reference, outputs=names, threads=self.options.threads)

            def with_targets(
                now: Arrays, images: Arrays, teacher: Session = teacher,
                targets: Sequence[Target] = targets, block: Block = block,
            ) -> Arrays:  # fmt: skip
                wanted = _run(teacher, images)
                found = {name: now[name] for name in block.inputs}
                return found | {t.feed: wanted[t.tensor] for t in targets}

            held = None
            if now_held is not None and images_held is not None:
                held = with_targets(now_held, images_held)
            given = with_targets(now, images)
            examples = ArrayExamples(given, held, block.inputs, self.options)
            layers = {name: self.layers[name] for name in block.layers}
            learned = {name: self.learned[name] for name in block.layers}
            key = block.outputs[0]
            each = self.options.block_epochs
            self._descend(key, block.model, layers, learned, targets, examples, each)
            if last:
                return
            session = Session(self._fixed(block), threads=self.options.threads)
            now = _run(session, {name: now[name] for name in block.inputs})
            if now_held is not None:
                now_held = _run(session, {name: now_held[name] for name in block.inputs})

    def _end_to_end(self) -> None:
        targets = choose_targets(self.reference, self.student, self.images)
        teacher = Session(
            self.reference, outputs=[t.tensor for t in targets], threads=self.options.threads
        )
        examples = ImageExamples(teacher, targets, self.images, self.held, self.options)
        each = self.options.epochs
        self._descend("", self.student, self.layers, self.learned, targets, examples, each)

    def _descend(
        self,
        key: str,
        model: onnx.ModelProto,
        layers: Mapping[str, LearnedLayer],
        learned: Mapping[str, Learned],
        targets: Sequence[Target],
        examples: ArrayExamples | ImageExamples,
        epochs: int,
    ) -> None:
        shifts = {name: self.shifts[name] for name in layers}
        descent = Distillation(
            model, layers, learned, targets, shifts, examples, self.rate, self.options.threads,
            self.activations,
        )  # fmt: skip
        descent.report = self._report
        stop = None if self.stops is None else self.stops.get(key, 0)
        losses = self.losses[key] = descent.run(epochs, stop)
        self.best[key] = int(np.argmin(losses)) if examples.judges else len(losses)
        self.blocked |= dict.fromkeys(descent.blocked)
        log.debug("%s: %s", key or "end to end", self.losses[key])

    def _report(self, steps: int) -> None:
        self.done += steps
        if self.options.progress is not None:
            self.options.progress("learn", min(self.done, self.steps), self.steps)

    def _fixed(self, block: Block) -> onnx.ModelProto:
        """The block with what was learned."""
        model = copied(block.model)
        values: Arrays = {}
        for name in block.layers:
            values |= self.layers[name].feeds(self.learned[name].values(), self.shifts[name])
        for tensor in model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
        return model


def _bytes(facts: Facts, names: Sequence[str]) -> int:
    return sum(4 * int(np.prod(facts.shapes[name])) for name in names)


def _collected(images: CalibrationSet) -> Arrays:
    parts = [batch.feeds for batch in images.batches(64)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _run(session: Session, feeds: Mapping[str, Array], batch: int = 32) -> Arrays:
    """All outputs over all samples."""
    count = len(next(iter(feeds.values())))
    parts = [
        session.run({name: x[start : start + batch] for name, x in feeds.items()})
        for start in range(0, count, batch)
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
