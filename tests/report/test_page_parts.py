"""The parts of the page: numbers of the drawings against what they are drawn from."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.report.page.axes import Axis, log_axis
from onnx_esn.report.page.bit_histogram import tally
from onnx_esn.report.page.front import front_chart
from onnx_esn.report.page.layer_cells import layer_row
from onnx_esn.report.page.pieces import name
from onnx_esn.report.page.reproduce import broken, command_block
from onnx_esn.report.page.strips import strip
from tests.report.html import Page
from tests.report.reports import report_document, sweep_report_document

CODES = st.text("012345678xf", min_size=1, max_size=200)


def heights(markup, kind):
    """Height of each column of a path of steps, away from the line at 8."""
    path = re.search(rf'<path d="([^"]*)" class="{kind}">', markup)
    if path is None:
        return None
    start, *steps = re.findall(r"([MvhVz])([-\d. ]*)", path[1])
    assert start == ("M", "0 8")
    at, columns = 0.0, []
    for letter, number in steps:
        if letter == "v":
            at += float(number)
        elif letter == "h":
            columns += [abs(at)] * int(number)
    return columns


@given(CODES)
def test_a_strip_draws_every_filter(codes):
    drawn = strip(codes, most=200)
    assert f'viewBox="0 0 {len(codes)} 11"' in drawn
    empty = [0.0] * len(codes)
    sky = [float(c) if c.isdigit() else 0.0 for c in codes]
    assert (heights(drawn, "sky") or empty) == pytest.approx(sky)
    gone = [3.0 if c == "x" else 0.0 for c in codes]
    assert (heights(drawn, "gone") or empty) == pytest.approx(gone)
    floats = [8.0 if c == "f" else 0.0 for c in codes]
    assert (heights(drawn, "float") or empty) == pytest.approx(floats)


@given(CODES, st.integers(1, 12))
def test_a_long_strip_has_no_more_columns_than_asked_for(codes, most):
    drawn = strip(codes, most)
    columns = int(re.search(r'viewBox="0 0 (\d+)', drawn)[1])
    assert columns <= most
    size = -(-len(codes) // most) if len(codes) > most else 1
    parts = [codes[i : i + size] for i in range(0, len(codes), size)]
    mean = [sum(int(c) for c in p if c.isdigit()) / len(p) for p in parts]
    # One decimal is written for each step up or down.
    assert (heights(drawn, "sky") or [0.0] * columns) == pytest.approx(mean, abs=0.05 * columns)


def test_a_histogram_counts_filters_macs_and_what_is_gone():
    layers = report_document(layers=3, filters=16)["report"]["layers"]
    layers[0]["after"] |= {"bits": {"2": 4, "0": 2, "8": 6}, "macs": 1200}
    layers[1]["after"] |= {"quantized": False, "bits": {"32": 12}, "macs": 600}
    layers[2]["after"] = None
    filters, macs = tally(layers)
    assert filters == {"2": 4, "0": 2, "8": 6, "float": 12, "removed": 8}
    assert macs == {"2": 400, "0": 200, "8": 600, "float": 600}


@pytest.mark.parametrize("axis", [Axis(0, 40), Axis(-3, 3), Axis(0.1, 7e9, logarithmic=True)])
def test_an_axis_goes_from_end_to_end_and_no_further(axis):
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 100
    assert axis.place(axis.low - 1) == 0
    assert axis.place(axis.high * 2) == 100


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_on_the_axis_evenly_and_few(low, span, most):
    axis = Axis(low, low + max(span, abs(low) * 1e-6))
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1
    tolerance = 1e-6 * (axis.high - axis.low) + 1e-9
    assert all(axis.low - tolerance <= t <= axis.high + tolerance for t in ticks)
    steps = {round((b - a) / (axis.high - axis.low), 3) for a, b in pairwise(ticks)}
    assert len(steps) <= 1


@given(st.floats(1e-3, 1e12), st.floats(1, 1e9), st.integers(3, 8))
def test_ticks_of_a_logarithmic_axis_are_on_it(low, ratio, most):
    axis = log_axis([low, low * ratio])
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    assert all(axis.low <= t <= axis.high for t in ticks)
    assert axis.low < low
    assert axis.high > low * ratio or ratio == 1


def test_a_row_has_lengths_that_are_shares():
    layer = report_document(layers=1)["report"]["layers"][0]
    totals = {
        ("before", "macs"): 2e6, ("after", "macs"): 3e6,
        ("before", "esn_prime"): 64e6, ("after", "esn_prime"): 9e6,
    }  # fmt: skip
    row = layer_row(0, layer, totals, largest=0.5, loudest=60.0)
    assert re.findall(r"--b:([\d.]+)%;--a:([\d.]+)%", row) == [
        ("100", "50"),
        ("100", "50"),
        ("0", "50"),
    ]
    assert "--l:37.5%;--w:0%;--m:37.5%" in row


def test_points_lie_where_their_figures_say():
    """The further right the more it costs, the higher the better; what is off the axis says so."""
    document = sweep_report_document()
    chart = front_chart(document, 4)
    places = {
        int(i): (float(x), float(y))
        for i, x, y in re.findall(r'data-point="(\d+)".*?x="([\d.]+)%" y="([\d.]+)%"', chart)
    }
    done = [i for i, p in enumerate(document["points"]) if p["status"] == "done"]
    assert sorted(places) == done
    by_cost = sorted(done, key=lambda i: document["points"][i]["esn_prime"])
    xs = [places[i][0] for i in by_cost]
    assert xs == sorted(xs)
    shown = [i for i in done if document["points"][i]["accuracy"] > 0.5]
    by_quality = sorted(shown, key=lambda i: -document["points"][i]["accuracy"])
    ys = [places[i][1] for i in by_quality]
    assert ys == sorted(ys)
    assert chart.count("below the axis") == 2 * (len(done) - len(shown)) == 2
    assert chart.count('class="ring"') == 1


def test_a_long_name_is_cut_and_kept_in_a_title():
    long = "block/" * 30 + "end"
    page = Page(name(long, 40))
    assert page.attributes("title") == [long]
    assert len(page.text) == 40
    assert page.text.endswith("end")


def test_a_command_is_continued_before_its_options():
    words = ["onnx-esn", "compress", "m.onnx", "-o", "a b", "--bits", "4", "--shift", "-1"]
    text = "".join(broken(words))
    assert text == "onnx-esn compress m.onnx \\\n    -o a b \\\n    --bits 4 \\\n    --shift -1"
    assert Page(command_block(words, "x")).problems == []
