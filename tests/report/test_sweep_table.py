import pytest

from onnx_esn.report.sweep_table import sweep_table

from .sweeps import methods_document, sweep_document
from .test_tables import render


def rows(document, width=120):
    return [line.split() for line in render(sweep_table(document), width).splitlines()]


def test_grid():
    text = rows(sweep_document(failed=True))
    assert ["0", "2", "40.0M", "80.0M"] in [row[:4] for row in text]
    assert sum(row[-2:] == ["◂", "front"] for row in text) == 3
    assert any("failed:" in row for row in text)
    assert not any("factor" in row for row in text)


def test_methods():
    text = rows(methods_document())
    assert text[1][:6] == ["method", "target", "MACs", "ESN'_d", "ESN_d", "ESN_a"]
    assert ["joint", "2", "40.0M", "79.2M", "60.0M", "107M"] in [row[:6] for row in text]
    failed = next(row for row in text if "failed:" in row)
    assert failed == ["prune-only", "0.500", "failed:", "no", "such", "cost"]


def test_cost_at_equal_quality():
    text = rows(methods_document())
    at = next(i for i, row in enumerate(text) if row[:4] == ["Cost", "at", "equal", "accuracy,"])
    assert text[at + 3] == ["79.0", "%", "100M", "joint", "50.0M", "0.500×"]
    assert text[at + 4] == ["75.0", "%", "n/a", "joint", "50.0M", "n/a"]
    assert text[at + 5] == ["50.0", "%", "n/a", "n/a", "n/a", "n/a"]
    assert text[at + 6] == ["45.0", "%", "100M", "joint", "≤", "cheapest", "≤", "0.500×"]


@pytest.mark.parametrize("metric", ["top1", "snr_db"])
def test_other_metrics(metric):
    document = methods_document(metric)
    for level in document["equal_quality"]:
        level["level"] = 20.0 if metric == "snr_db" else 0.95
    expected = ["20.0", "dB"] if metric == "snr_db" else ["95.0", "%"]
    assert expected in [row[:2] for row in rows(document)]
