"""Things that workers need: where to get them, or their parts."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import onnx

from .held import Build, Reach


class Payload(Protocol):
    """Something that workers are to hold.

    Attributes:
        key: a hash of its content.
        fetch: how a worker may get it by itself; None where it cannot.
    """

    @property
    def key(self) -> str:
        """See there."""
        ...

    @property
    def fetch(self) -> Reach | None:
        """See there."""
        ...

    def parts(self) -> Iterator[Any]:
        """What is sent, one after the other, so that no more than one is held."""
        ...

    @staticmethod
    def keep(part: Any) -> Any:
        """What a worker keeps of a part until all are there."""
        ...

    @property
    def build(self) -> Build:
        """Makes the thing of its parts; may be pickled."""
        ...


@dataclass(frozen=True)
class Parcel:
    """One thing, sent as bytes.

    Attributes:
        key: a hash of its content.
        content: the bytes.
        build: makes the thing of a list with them.
    """

    key: str
    content: bytes
    build: Build
    fetch: Reach | None = None

    def parts(self) -> Iterator[bytes]:
        """See `Payload`."""
        yield self.content

    @staticmethod
    def keep(part: Any) -> Any:
        """See `Payload`."""
        return part


def model_parcel(model: onnx.ModelProto, digest: str) -> Parcel:
    """A model, by the hash of its bytes."""
    return Parcel(f"model {digest}", model.SerializeToString(deterministic=True), _read_model)


def parcel(thing: Any) -> Parcel:
    """Anything that cloudpickle takes: functions of a script too."""
    import cloudpickle

    content: bytes = cloudpickle.dumps(thing)
    return Parcel(f"thing {hashlib.sha256(content).hexdigest()}", content, _unpickle)


def _read_model(parts: list[bytes]) -> onnx.ModelProto:
    return onnx.load_model_from_string(parts[0])


def _unpickle(parts: list[bytes]) -> Any:
    return pickle.loads(parts[0])
