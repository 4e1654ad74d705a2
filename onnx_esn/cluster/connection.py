"""A connection to a Dask scheduler, with errors of our own and without its chatter."""

from __future__ import annotations

import importlib.util
import logging
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from onnx_esn.errors import OperationError, OptionError

_ADDRESS = re.compile(
    r"(?:(?P<scheme>tcp|tls|ws|wss)://)?(?P<host>[^\s/:\[\]]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d+)"
)
TIMEOUT = 5.0  # seconds to connect in


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A `distributed.Client`; what it logs is left out meanwhile.

    Raises:
        OptionError: dask is not installed, or the address is none.
        OperationError: no scheduler answers there.
    """
    knock(address)
    import distributed

    with _quiet():
        # Of a client that could not be made, what is left must not try to close a connection.
        client: Any = object.__new__(distributed.Client)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions, which are checked more strictly here
                client.__init__(address, timeout=TIMEOUT, set_as_default=False)
        except Exception as error:
            client.status = "closed"
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OperationError(f"the scheduler at {address} cannot be used: {why}") from error
        try:
            yield client
        finally:
            with suppress(Exception):  # it went before us
                client.close(timeout=2)


def knock(address: str) -> None:
    """See whether a scheduler is there: dask itself can take minutes to find that out.

    Raises:
        OptionError: it is no address, or dask is not installed.
        OperationError: nobody is there, or somebody else: a scheduler greets first.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or int(parts["port"]) > 65535:
        raise OptionError(
            f"scheduler {address!r} is not an address such as tcp://10.0.0.1:8786, which "
            "'dask scheduler' prints"
        )
    if importlib.util.find_spec("distributed") is None:
        raise OptionError(
            "a scheduler needs dask: pip install 'onnx-esn[cluster]', here and where the workers "
            "are"
        )
    try:
        place = parts["host"].strip("[]"), int(parts["port"])
        with socket.create_connection(place, timeout=TIMEOUT) as connection:
            if parts["scheme"] in (None, "tcp") and not connection.recv(1):
                raise OSError("the connection was closed")
    except OSError as error:
        why = error.strerror or str(error)
        raise OperationError(
            f"no Dask scheduler answers at {address} ({why}): start one with 'dask scheduler', "
            "which prints its address"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Workers that go and come are told by this package, in one line each."""
    root = logging.getLogger("distributed")
    names = [n for n in logging.root.manager.loggerDict if n.startswith("distributed.")]
    loggers = [root, *(logging.getLogger(name) for name in names), logging.getLogger("tornado")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
