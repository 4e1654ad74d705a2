"""Learn weights by stochastic gradient descent towards what the reference makes of the images.

Hinton et al. (2015), "Distilling the knowledge in a neural network", with the float model as the
teacher of its own compressed copy. The images that are held out choose the epoch that is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import Session
from onnx_esn.errors import VerificationError
from onnx_esn.numerics.agreement import divergence
from onnx_esn.numerics.learning.adam import Adam, cosine_rate
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.learning.activation_intervals import ActivationIntervals
from onnx_esn.passes.learning.examples import Examples
from onnx_esn.passes.learning.learned import Learned
from onnx_esn.passes.learning.student import LearnedLayer
from onnx_esn.passes.learning.training_graph import Target, training_graph

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]

_WARM_UP = 20  # steps, in which Adam learns how large gradients are
_MEMORY = 1.0  # epochs over which parameters are averaged
_ACTIVATIONS = "activations//"  # before their parameters; layers have one slash
_SHIFT = 0.1  # a large step of an output's shift, against the norm of its filter


class Distillation:
    """The descent; `learned` and `shifts` are changed in place.

    Args:
        student: the model.
        layers: its learned layers.
        learned: what their filters are made of.
        targets: what it should come close to.
        shifts: by layer, (M,) added to its outputs.
        examples: what to learn from.
        rate: of the first steps.
        threads: threads for one operator.
        activations: intervals of the student's tensors, learned too; None: it has none.

    Attributes:
        blocked: (node, reason) where no gradient goes through.
        report: called after each step with 1, where it is set.
    """

    def __init__(
        self,
        student: onnx.ModelProto,
        layers: Mapping[str, LearnedLayer],
        learned: Mapping[str, Learned],
        targets: Sequence[Target],
        shifts: dict[str, Floats],
        examples: Examples,
        rate: float,
        threads: int | None,
        activations: ActivationIntervals | None = None,
    ) -> None:
        self.layers, self.learned, self.rate = layers, learned, rate
        self.activations = activations
        self.examples = examples
        self.report: Callable[[int], None] | None = None
        self.shifts = shifts
        fed = [name for x in layers.values() for name in x.names]
        fed += activations.fed if activations is not None else []
        graph = training_graph(student, fed, targets, examples.sizes)
        self.blocked, self._gradients = graph.blocked, graph.gradients
        self._loss = graph.loss
        self._judged = [t for t in targets if t.judged]
        self._session = Session(graph.model, threads=threads)
        self._judge = Session(
            graph.model, outputs=[t.tensor for t in self._judged], threads=threads
        )

    def run(self, epochs: int, stop: int | None = None) -> list[float]:
        """Descend, and go back to the epoch that was best on the held-out images.

        Judged and kept are running means of the parameters, in which the noise of single steps
        averages out (Polyak and Juditsky, 1992).

        Args:
            epochs: that the schedule of the rate is for.
            stop: after how many of them to stop, where that is known from elsewhere.

        Returns:
            The divergence on held-out images before the first and after each epoch; without
            held-out images the mean loss of each epoch.

        Raises:
            VerificationError: a loss is not finite.
        """
        per_epoch = self.examples.per_epoch
        steps = epochs * per_epoch
        warm_up = min(_WARM_UP, steps // 5)
        adam = Adam(self._scales())
        parameters = self._parameters()
        judges = self.examples.judges
        judged = [self._held_divergence()] if judges else []
        best = _copies(parameters)
        mean = _copies(parameters)
        forget = 1 / max(_MEMORY * per_epoch, 1.0)
        done = 0
        for epoch in range(epochs if stop is None else stop):
            total = 0.0
            for feeds in self.examples.training(epoch):
                loss, gradients = self.step(feeds)
                rate = self.rate * cosine_rate(done, steps, warm_up)
                adam.step(parameters, gradients, rate)
                for learned in self.learned.values():
                    learned.settle()
                if self.activations is not None:
                    self.activations.learned.settle()
                weight = max(forget, 1 / (done + 2))
                for name, value in parameters.items():
                    mean[name] += weight * (value - mean[name])
                total, done = total + loss, done + 1
                if self.report is not None:
                    self.report(1)
            now = _copies(parameters)
            _assign(parameters, mean)
            judged.append(self._held_divergence() if judges else total / per_epoch)
            log.debug("epoch %d: training loss %.5g, %.5g", epoch, total / per_epoch, judged[-1])
            if stop is not None or not judges or judged[-1] <= min(judged):
                best = _copies(mean)
            _assign(parameters, now)
        _assign(parameters, best)
        return judged

    def step(self, feeds: Mapping[str, Array]) -> tuple[float, dict[str, Floats]]:
        """Loss and gradients by parameter ("layer/name") of one batch.

        Raises:
            VerificationError: the loss is not finite.
        """
        found = self._session.run(self._fed(feeds))
        loss = _finite(found[self._loss])
        gradients: dict[str, Floats] = {}
        for name, layer in self.layers.items():
            if any(fed not in self._gradients for fed in layer.names):
                continue  # nothing that counts depends on it
            arrived = {fed: found[self._gradients[fed]] for fed in layer.names}
            rows, shift = layer.gradients(arrived)
            own = self.learned[name].gradients(rows)
            gradients |= {f"{name}/{key}": value for key, value in own.items()}
            gradients[f"{name}/shift"] = shift
        if self.activations is not None:
            arrived = {fed: found[g] for fed, g in self._gradients.items()}
            own = self.activations.gradients(arrived)
            gradients |= {_ACTIVATIONS + key: value for key, value in own.items()}
        return loss, gradients

    def _fed(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = dict(feeds)
        for name, layer in self.layers.items():
            given |= layer.feeds(self.learned[name].values(), self.shifts[name])
        return given if self.activations is None else given | self.activations.feeds()

    def _held_divergence(self) -> float:
        """Of what is judged, from its targets; infinite where it is not finite."""
        wanted: dict[str, list[Array]] = {t.tensor: [] for t in self._judged}
        found: dict[str, list[Array]] = {t.tensor: [] for t in self._judged}
        for feeds in self.examples.judging():
            made = self._judge.run(self._fed(feeds))
            for target in self._judged:
                wanted[target.tensor].append(feeds[target.feed])
                found[target.tensor].append(made[target.tensor])
        return divergence(
            {name: np.concatenate(x) for name, x in wanted.items()},
            {name: np.concatenate(x) for name, x in found.items()},
        )

    def _parameters(self) -> dict[str, Floats]:
        found = {f"{n}/{k}": v for n, x in self.learned.items() for k, v in x.parameters.items()}
        found |= {f"{n}/shift": v for n, v in self.shifts.items()}
        if self.activations is not None:
            own = self.activations.learned.parameters
            found |= {_ACTIVATIONS + key: value for key, value in own.items()}
        return found

    def _scales(self) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for name, learned in self.learned.items():
            found |= {f"{name}/{key}": scale for key, scale in learned.scales.items()}
            norm = np.sqrt(np.square(learned.values()).sum(axis=1))
            found[f"{name}/shift"] = _SHIFT * norm
        if self.activations is not None:
            own = self.activations.learned.scales
            found |= {_ACTIVATIONS + key: scale for key, scale in own.items()}
        return found


def _copies(values: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: value.copy() for name, value in values.items()}


def _assign(values: Mapping[str, Floats], new: Mapping[str, Floats]) -> None:
    for name, value in values.items():
        value[...] = new[name]


def _finite(loss: Array) -> float:
    value = float(loss.reshape(()))
    if not np.isfinite(value):
        raise VerificationError("learning: the loss is not finite (NaN or infinity)")
    return value
