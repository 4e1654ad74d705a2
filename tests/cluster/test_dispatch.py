"""Work is handed out once, survives the death of a worker, and fails in one line."""

from __future__ import annotations

import socket
import time

import pytest

from onnx_esn.cluster import dispatch
from onnx_esn.cluster.connection import connected
from onnx_esn.cluster.dispatch import Cluster, Died
from onnx_esn.cluster.payload import parcel
from onnx_esn.errors import OperationError, OptionError

from .killing import add, die, fail

pytest.importorskip("distributed", reason="the extra [cluster] is not installed")


@pytest.fixture
def workers(address):
    with connected(address) as client:
        yield Cluster(client)


def test_results(workers):
    found = dict(workers.run(add, list(range(7)), {"offset": parcel(100)}))
    assert found == {i: 100 + i for i in range(7)}


def test_nothing_to_do(workers):
    assert list(workers.run(add, [], {})) == []


def test_each_thing_is_sent_to_a_worker_once(workers, monkeypatch):
    sent = []
    whole = workers._bring
    monkeypatch.setattr(workers, "_bring", lambda a, p: (sent.append((a, p.key)), whole(a, p)))
    offset = parcel("a thing of its own: ")
    for _ in range(2):
        assert len(dict(workers.run(add, ["a", "b", "c"], {"offset": offset}))) == 3
    assert 1 <= len(sent) == len(set(sent)) <= 2


@pytest.mark.slow
def test_what_kills_every_worker_is_given_up(workers):
    found = dict(workers.run(die, [0, 1, 2, 3], {}))
    assert isinstance(found[1], Died)
    assert len(found[1].workers) == 3
    assert [found[i] for i in (0, 2, 3)] == [0, 2, 3]


def test_other_errors_are_raised(workers):
    with pytest.raises(ZeroDivisionError, match="item 5"):
        list(workers.run(fail, [5], {}))


def test_other_versions_are_refused(workers, monkeypatch):
    other = {**dispatch.versions(), "numpy": "1.0", "onnxruntime": "0.1"}
    monkeypatch.setattr(dispatch, "versions", lambda: other)
    expected = r"worker tcp://\S+ would not give the same bytes: numpy \S+ \(here 1\.0\), onnxrunt"
    with pytest.raises(OperationError, match=expected):
        list(workers.run(add, [1], {"offset": parcel(1)}))


def test_another_processor_is_warned_of(workers, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "processor", lambda: "m68k 0")
    assert dict(workers.run(add, [1], {"offset": parcel(1)})) == {0: 2}
    assert "has another processor" in caplog.text


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(address, error):
    """The message of a connection that fails at once."""
    begin = time.monotonic()
    with pytest.raises(error) as caught, connected(address):
        pass
    assert time.monotonic() - begin < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nobody_answers():
    address = f"tcp://127.0.0.1:{free_port()}"
    expected = f"no Dask scheduler answers at {address} (Connection refused): start one with 'dask"
    assert refused(address, OperationError).startswith(expected)


def test_somebody_else_answers(monkeypatch):
    monkeypatch.setattr("onnx_esn.cluster.connection.TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert f"answers at {address} (timed out)" in refused(address, OperationError)


def test_no_certificate():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tls://127.0.0.1:{mute.getsockname()[1]}"
        assert f"at {address} cannot be used: TLS expects" in refused(address, OperationError)


@pytest.mark.parametrize(
    "address", ["nonsense", "foo://a:1", "", "tcp://", "127.0.0.1:http", "tcp://a:99999"]
)
def test_no_address(address):
    message = refused(address, OptionError)
    assert message.startswith(f"scheduler {address!r} is not an address such as tcp://10.0.0.1")


def test_no_workers(workers, monkeypatch):
    workers.patience = 0.5
    monkeypatch.setattr(workers.client, "nthreads", dict)
    with pytest.raises(OperationError, match=r"has no workers, waited 0\.5 s .* 'dask worker "):
        list(workers.run(add, [1], {}))
