"""The page of a report: whole, its own, escaped, the same figures as the document's."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re

import pytest

from onnx_esn.errors import OptionError
from onnx_esn.report import numbers
from onnx_esn.report.page.assembly import MOST_IN_PAGE, report_page
from onnx_esn.report.page.markup import visible
from onnx_esn.report.page.sweep_points import quality_shown
from onnx_esn.report.summaries import trial_lines
from tests.report.html import Page
from tests.report.reports import grid_report_document, report_document, sweep_report_document
from tests.report.test_page_markup import NASTY

BOTH = pytest.mark.parametrize(
    "make", [report_document, sweep_report_document, grid_report_document]
)


@BOTH
def test_the_page_is_balanced_and_its_ids_are_its_own(make):
    page = Page(report_page(make()))
    assert page.problems == []
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    targets = {link[1:] for link in page.attributes("href") if link.startswith("#")}
    targets |= set(page.attributes("aria-labelledby"))
    assert targets <= set(ids)
    assert page.tags()["h1"] == 1


@BOTH
def test_nothing_comes_from_anywhere_else(make):
    text = report_page(make())
    assert re.findall(r"https?:|//[a-z]|@import|url\(", text) == []
    page = Page(text)
    assert page.attributes("src") == []
    assert {a for a in page.attributes("href") if not a.startswith("#")} == {"data:,"}


@BOTH
def test_only_its_own_script_may_run(make):
    page = Page(report_page(make()))
    (own,) = [text for about, text in page.scripts if "type" not in about]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (policy,) = [x["content"] for _, x, _ in page.elements if x.get("http-equiv")]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not any(name.startswith("on") for _, about, _ in page.elements for name in about)


@BOTH
def test_the_same_document_makes_the_same_page(make):
    assert report_page(make()) == report_page(json.loads(json.dumps(make())))


@BOTH
@pytest.mark.parametrize("text", NASTY)
def test_names_cannot_break_out(make, text):
    """Compared with a harmless name: the same elements with the same attributes, other text."""
    options = {"layers": 2, "skipped": [(text, text)], "command": ["onnx-esn", text]}
    harmless = {"layers": 2, "skipped": [("x", "y")], "command": ["onnx-esn", "x"]}
    options["name"] = text.replace("{", "{{").replace("}", "}}") + "{}"
    harmless["name"] = "x{}"
    pages = [Page(report_page(make(**given))) for given in (options, harmless)]
    assert pages[0].problems == []
    kinds = [[(t, sorted(a), p) for t, a, p in page.elements if t != "wbr"] for page in pages]
    # A name that is cut has its whole in a title.
    kinds = [[(t, [n for n in a if n != "title"], p) for t, a, p in kind] for kind in kinds]
    assert kinds[0] == kinds[1]
    assert visible(text)[:20].split("/")[0] in pages[0].text


def test_every_figure_is_in_the_markup():
    """Nothing is drawn by the script alone."""
    document = report_document(layers=30, skipped=[("node7", "it is a barrier")])
    page = Page(report_page(document))
    before, after = document["evaluation"]["models"]
    for figures in (before, after):
        for key in ("macs", "parameters", "esn_prime"):
            assert numbers.si(figures[key]) in page.text
        assert numbers.milliseconds(figures["latency"]["median_ms"]) in page.text
    assert "1.00 MB" in page.text
    assert "250 kB" in page.text
    assert "91.1 ± 0.8 %" in page.text
    assert "−1.4 ± 0.5 pp" in page.text
    for layer in document["report"]["layers"]:
        assert layer["name"] in page.text
        assert numbers.si(layer["after"]["esn_prime"]) in page.text
        assert numbers.decibel(layer["output_snr_db"]) in page.text
    assert "node7" in page.text
    assert "it is a barrier" in page.text
    assert page.tags()["circle"] == 30, "a stem for each layer"
    assert page.attributes("class").count("strip") == 30


@pytest.mark.parametrize("metric", ["accuracy", "top1", "snr_db"])
@pytest.mark.parametrize("make", [sweep_report_document, grid_report_document])
def test_a_sweep_has_its_points_and_their_commands(make, metric):
    document = {**make(), "metric": metric}
    page = Page(report_page(document))
    done = [p for p in document["points"] if p["status"] == "done"]
    assert page.attributes("class").count("point") + page.attributes("class").count(
        "point chosen"
    ) == len(done)
    for index, point in enumerate(document["points"]):
        assert f"point-{index}" in page.attributes("id")
        assert f"'model {index}.onnx'" in page.text
        if point["status"] == "done":
            assert quality_shown(point, metric) in page.text
    assert "failed: no such cost" in page.text


def test_only_latency_may_differ_from_run_to_run():
    """What is marked as measured is all that another latency changes."""
    first = report_document()
    second = copy.deepcopy(first)
    for model in second["evaluation"]["models"]:
        model["latency"] = {"median_ms": 123.0, "p10_ms": 1, "p90_ms": 456.0, "ratio": 0.789}
    pages = [re.sub(r'<script type="application/json".*?</script>', "", report_page(d)) for d in
             (first, second)]  # fmt: skip
    assert pages[0] != pages[1]
    parts = [re.sub(r"<(\w+)[^>]* data-measured>.*?</\1>", "", page) for page in pages]
    assert parts[0] == parts[1]


def test_two_thousand_layers_stay_below_a_few_megabytes():
    names = "backbone/stage{}/some_block/with_a_long_name/conv2d/Conv"
    text = report_page(report_document(layers=2000, filters=256, name=names))
    assert len(text.encode()) < 4_000_000
    page = Page(text)
    assert page.problems == []
    assert page.attributes("id").count("layer-1999") == 1
    assert page.tags()["circle"] <= 300, "stems that can be told apart"


@pytest.mark.parametrize(("layers", "there"), [(MOST_IN_PAGE, True), (MOST_IN_PAGE + 1, False)])
def test_the_page_carries_its_data_unless_it_is_large(layers, there):
    page = Page(report_page(report_document(layers=layers)))
    data = [text for about, text in page.scripts if about.get("type") == "application/json"]
    assert bool(data) == there
    if there:
        assert json.loads(data[0]) == report_document(layers=layers)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(evaluation=None),
        lambda d: [m.update(latency=None) for m in d["evaluation"]["models"]],
        lambda d: [m.update(accuracy=None) for m in d["evaluation"]["models"]],
        lambda d: [m.update(accuracy=None, agreement=None) for m in d["evaluation"]["models"]],
        lambda d: [
            m.update(accuracy=None, agreement={"output": "y", "reason": "another shape"})
            for m in d["evaluation"]["models"]
        ],
        lambda d: [m.update(accuracy=None) or m["agreement"].update(top1=None, snr_db=None,
                   normalized_error=0) for m in d["evaluation"]["models"]],
        lambda d: d["report"].update(layers=[], groups=[]),
        lambda d: d["report"].update(model=None, output=None, command=[]),
        lambda d: d["report"]["layers"][0].update(after=None, removed=None, filters=None),
        lambda d: d["report"]["layers"][0].update(before=None, removed=None, filters=None),
        lambda d: [x.update(output_snr_db=None, reason="why") for x in d["report"]["layers"]],
        lambda d: [x.update(output_equal=True, output_snr_db=None) for x in d["report"]["layers"]],
        lambda d: [x["after"].update(macs=None, esn_prime=None) for x in d["report"]["layers"]],
        lambda d: [x["after"].update(quantized=False, bits={"32": 12}) for x in
                   d["report"]["layers"]],
        lambda d: d["report"]["layers"][0]["after"].update(filters=0, bits={}, bits_mean=None,
                                                           bits_min=None, bits_max=None),
        lambda d: d["stages"][0]["details"].update(trials=[
            {"macs": None, "cost": 10.0, "divergence": 0.2},
            {"macs": 5, "cost": 9.0, "divergence": 0.1}]),
        lambda d: d["report"].update(notes=["a <note>"]),
    ],
)  # fmt: skip
def test_what_is_not_known_is_no_obstacle(change):
    document = report_document()
    change(document)
    page = Page(report_page(document))
    assert page.problems == []
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_a_document_without_a_report_is_refused():
    with pytest.raises(OptionError, match="no report"):
        report_page({"schema": "onnx-esn/result/1", "stages": []})


def colours(scheme):
    """Custom properties of the style sheet, light or dark."""
    style = re.search(r"<style>(.*?)</style>", report_page(report_document()), re.S)[1]
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", style)
    wanted = next(b for b in blocks if f"color-scheme: {scheme}" in b)
    return dict(re.findall(r"(--[\w]+): (#[0-9a-f]{6});", wanted))


def contrast(a, b):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_to_read(scheme):
    """WCAG AA: 4.5 for text, 3 for what is drawn."""
    found = colours(scheme)
    for ground in ("--paper", "--card", "--wash"):
        for text in ("--ink", "--soft", "--after", "--warn"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    for ground in ("--paper", "--card"):
        for drawn in ("--before", "--after", "--warn", "--focus", *(f"--m{i}" for i in range(7))):
            assert contrast(found[drawn], found[ground]) >= 3, (drawn, ground)


def test_both_places_of_the_dark_colours_agree():
    style = re.search(r"<style>(.*?)</style>", report_page(report_document()), re.S)[1]
    dark = [b for b in re.findall(r":root[^{]*\{([^}]*)\}", style) if "color-scheme: dark" in b]
    assert len(dark) == 2
    assert len({re.sub(r"\s+", " ", b) for b in dark}) == 1


@pytest.mark.parametrize(
    ("kept", "marks"),
    [
        ((True, False), [" (kept)", ""]),
        ((False, True), [" (not clearly better)", " (kept)"]),
        ((None, None), [" (kept)", ""]),  # documents from before it was said
    ],
)
def test_the_trial_that_was_kept_is_marked(kept, marks):
    """Pruning that is better by chance is not kept, though its divergence is the least."""
    trials = [
        {"macs": 5, "cost": 9.0, "divergence": 0.1, "kept": kept[0]},
        {"macs": None, "cost": 10.0, "divergence": 0.2, "kept": kept[1]},
    ]
    if kept[0] is None:
        trials = [{k: v for k, v in t.items() if k != "kept"} for t in trials]
    lines = trial_lines({"trials": trials[::-1]})
    assert lines[1:] == [
        f"  {text}{mark}"
        for text, mark in zip(("0.1 with MACs 5", "0.2 with all channels"), marks, strict=True)
    ]
    document = report_document()
    document["stages"][0]["details"].update(trials=trials)
    text = " ".join(Page(report_page(document)).text.split())
    assert "5 MACs ◂ kept" in text if marks[0] == " (kept)" else "all channels ◂ kept" in text
    assert text.count("◂ kept") == 1
