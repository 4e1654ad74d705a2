"""Codes as text in a plan."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_esn.errors import PlanError
from onnx_esn.plans import (
    LayerQuantization,
    QuantizationPlan,
    decode_codes,
    encode_codes,
    parse_plan,
)

doubled = arrays(
    np.int64, st.tuples(st.integers(0, 4), st.integers(0, 6)), elements=st.integers(-255, 255)
)


@given(doubled)
def test_codes_survive(numbers):
    codes = numbers / 2
    np.testing.assert_array_equal(decode_codes(encode_codes(codes), codes.shape), codes)


def test_what_the_text_is():
    text = encode_codes([[0.5, -1.5], [2.0, 0.0]])
    raw = zlib.decompress(base64.b64decode(text))
    assert np.frombuffer(raw, "<i2").tolist() == [1, -3, 4, 0]


@pytest.mark.parametrize("codes", [[[0.25]], [[20000.0]], [[np.nan]], [[np.inf]]])
def test_what_cannot_be_encoded(codes):
    with pytest.raises(ValueError, match=r"multiples of 0\.5"):
        encode_codes(codes)


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = zlib.compress(np.arange(6, dtype="<i2").tobytes())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not base64!", "not base64"),
        ("codes: ±½", "not base64"),
        (packed(b"no zlib"), "damaged"),
        (packed(GOOD[:-1]), "damaged"),
        (packed(GOOD[:-6]), "damaged"),
        (packed(GOOD + b"more"), "damaged"),
        (packed(GOOD[:-1] + b"?"), "damaged"),
        ("", "damaged"),
        (packed(zlib.compress(bytes(10))), "5 weights, and the layer has 2×3"),
        (packed(zlib.compress(bytes(14))), "more weights, and the layer has 2×3"),
        (packed(zlib.compress(bytes(10**7))), "more weights"),
    ],
)
def test_damage_is_told(text, words):
    with pytest.raises(PlanError, match=words):
        decode_codes(text, (2, 3))


def test_the_optional_fields_are_written_only_where_they_say_something():
    plain = LayerQuantization("a", (2,), (0.5,))
    full = LayerQuantization("b", (2,), (0.5,), encode_codes([[0.5, 1.5]]), (0.25,))
    plan = QuantizationPlan((plain, full), quantizer="mid-tread")
    document = json.loads(plan.to_json())
    assert document["quantizer"] == "mid-tread"
    assert list(document["layers"][0]) == ["layer", "bits", "step"]
    assert list(document["layers"][1]) == ["layer", "bits", "step", "codes", "bias"]
    assert parse_plan(document, QuantizationPlan) == plan
    assert "quantizer" not in json.loads(QuantizationPlan((plain,)).to_json())
    assert parse_plan({"layers": []}, QuantizationPlan).quantizer == "mid-rise"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"codes": 3}, "'codes' must be a string"),
        ({"bias": 0.5}, "'bias' must be a list of numbers"),
        ({"bias": ["a"]}, "'bias' must be a list of numbers"),
    ],
)
def test_wrong_fields(fields, words):
    entry = {"layer": "a", "bits": [2], "step": [0.5], **fields}
    with pytest.raises(PlanError, match=words):
        parse_plan({"layers": [entry]}, QuantizationPlan)
    with pytest.raises(PlanError, match="'quantizer' must be a string"):
        parse_plan({"layers": [], "quantizer": 3}, QuantizationPlan)
