"""Hostile plans, policies, latency models, labels and checkpoints, one way of being wrong each.

A case has the text of a file and the exit code; each kind of file has a command that reads it.
"""

from __future__ import annotations

import json

DEEP = "[" * 200_000
DIGITS = "1" + "0" * 10_000

ANY: dict[str, bytes] = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "no object": b"[1, 2]",
    "text": b'"plan"',
    "nothing": b"null",
    "cut short": b'{"schema": "onnx-esn/pruning-plan/1", "slices": [{"tensor": "a',
    "nested": DEEP.encode(),
    "digits": ('{"schema": ' + DIGITS + "}").encode(),
    "twice": b'{"schema": 1, "schema": 2}',
    "not a number": b'{"version": NaN, "schema": -Infinity}',
    "another schema": b'{"schema": "onnx-esn/other/9", "format": "x"}',
    "surrogates": b'{"schema": "\\ud800", "\\udfff": 1}',
    "controls": b'{"\\u001b[2J\\u202e": 1}',
}
"""What no reader of JSON may take."""


def _plan(**fields) -> bytes:
    document = {"schema": "onnx-esn/pruning-plan/1", "slices": [], **fields}
    return json.dumps(document).encode()


def _slice(**fields) -> dict:
    return {"tensor": "a.weight", "axis": 0, "removed": [1], **fields}


def _nested(depth: int) -> bytes:
    inner = '{"schema": "onnx-esn/pruning-plan/1", "slices": [], "then": '
    return (inner * depth + "null" + "}" * depth).encode()


PLANS: dict[str, bytes] = {
    "unknown tensor": _plan(slices=[_slice(tensor="nowhere")]),
    "unknown axis": _plan(slices=[_slice(axis=17)]),
    "axis beyond all": _plan(slices=[_slice(axis=2**70)]),
    "index beyond": _plan(slices=[_slice(removed=[10**6])]),
    "index beyond all": _plan(slices=[_slice(removed=[10**400])]),
    "everything": _plan(slices=[_slice(removed=list(range(8)))]),
    "bias beyond": _plan(folded_constants=[{"node": "b", "bias": [1e299] * 6}]),
    "bias of another length": _plan(folded_constants=[{"node": "b", "bias": [1.0] * 9999}]),
    "merged into nothing": _plan(merged=[{"node": "b", "axis": 9, "into": [10**30], "added": [1]}]),
    "plans in plans": _nested(300),
    "plans in plans without end": _nested(5000),
}

QUANTIZATIONS: dict[str, bytes] = {
    name: json.dumps({"schema": "onnx-esn/quantization-plan/1", "layers": layers}).encode()
    for name, layers in {
        "no codes": [{}],
        "unknown layer": [{"layer": "nowhere", "bits": [3], "step": [1.0]}],
        "bits beyond": [
            {"layer": "a", "tensor": "a.weight", "bits": [10**30] * 8, "steps": [1] * 8}
        ],
        "steps of zero": [{"layer": "a", "tensor": "a.weight", "bits": [3] * 8, "steps": [0] * 8}],
        "steps below": [{"layer": "a", "tensor": "a.weight", "bits": [3] * 8, "steps": [-1.0] * 8}],
        "text for codes": [{"layer": "a", "bits": [3] * 8, "steps": [1.0] * 8, "codes": "%%%"}],
    }.items()
}

POLICIES: dict[str, bytes] = {
    "bits beyond": b'{"layers": [{"layer": "a", "bits": 99999999999999999999999999}]}',
    "bits below": b'{"layers": [{"layer": "a", "bits": -1}]}',
    "no bits": b'{"layers": [{"layer": "a"}]}',
    "unknown layer": b'{"layers": [{"layer": "nowhere", "bits": 3}]}',
    "layer twice": b'{"layers": [{"layer": "a", "bits": 3}, {"layer": "a", "bits": 4}]}',
    "no list": b'{"layers": {"a": 3}}',
    "policy of nothing": b'{"schema": "onnx-esn/trace/1", "policy": [1]}',
}


def _latency(layers, **fields) -> bytes:
    head = {"format": "onnx-esn/latency-model", "version": 1, "unit": "s", "rest": 0.0}
    return json.dumps({**head, "layers": layers, **fields}).encode()


_TIME = {"c0": 1e-6, "c1": 1e-9, "c2": 1e-9, "c3": 1e-12}
LATENCIES: dict[str, bytes] = {
    "infinite": _latency({"a": {**_TIME, "c3": 1e308 * 10}}),
    "huge": _latency({"a": {**_TIME, "c3": 1e299}, "b": _TIME, "gemm_7": _TIME}),
    "below zero": _latency({"a": {**_TIME, "c3": -1}}),
    "text": _latency({"a": {**_TIME, "c3": "1"}}),
    "digits": _latency({"a": {**_TIME, "c3": 10**400}}),
    "rest beyond": _latency({"a": _TIME}, rest=10**400),
    "unknown layers": _latency({"nowhere": _TIME}),
    "no layers": _latency({}),
    "layers of text": _latency("a"),
}

LABELS: dict[str, bytes] = {
    "empty": b"",
    "no header": b"000.png,1\n",
    "bytes": bytes(range(256)),
    "zero byte": b"file,label\n000.png,\x001\n",
    "digits": b"file,label\n000.png," + b"9" * 10_000 + b"\n",
    "long field": b"file,label\n" + b"x" * 200_000 + b",1\n",
    "open quote": b'file,label\n"000.png,1\n' * 3,
    "below zero": b"file,label\n000.png,-1\n",
    "outside": b"file,label\n../../etc/passwd,1\n",
    "unknown": b"file,label\nnowhere.png,1\n",
    "columns twice": b"file,file,label,label\n" + b"000.png,001.png,1,2\n",
}
