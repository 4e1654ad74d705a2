import subprocess
import sys

import pytest

from onnx_esn.errors import OptionError, OutputError
from onnx_esn.report.plots import plot_sweep

from .sweeps import sweep_document

HIDE = "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.style'] = None; "


@pytest.mark.parametrize("metric", ["accuracy", "top1", "snr_db"])
def test_files(tmp_path, metric):
    png, svg = plot_sweep(sweep_document(metric), tmp_path)
    assert png == tmp_path / "pareto.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text(encoding="utf-8")


def test_the_same_document_gives_the_same_bytes(tmp_path):
    import matplotlib

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = plot_sweep(sweep_document(), tmp_path / "a")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        second = plot_sweep(sweep_document(), tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 30
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("bits", [(4,), (4, 5)])
def test_a_narrow_range_of_cost_has_ticks(tmp_path, bits):
    from onnx_esn.report.plots import _draw

    document = sweep_document(ratios=(0.0,), bits=bits, failed=False)
    document["input"]["esn_prime"] = 4e8
    figure = _draw(document)
    figure.canvas.draw()
    assert sum(bool(label.get_text()) for label in figure.axes[0].get_xticklabels()) >= 2


def test_nothing_to_draw(tmp_path):
    document = sweep_document(ratios=())
    with pytest.raises(OptionError, match="no point"):
        plot_sweep(document, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_is_missing(tmp_path):
    with pytest.raises(OutputError):
        plot_sweep(sweep_document(), tmp_path / "absent")


def test_without_matplotlib_the_message_says_what_to_install():
    code = HIDE + "from onnx_esn.report.plots import plot_sweep; plot_sweep({}, '.')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "OptionError" in done.stderr
    assert "pip install 'onnx-esn[plot]'" in done.stderr


def test_matplotlib_is_not_imported_with_the_module():
    code = "import sys, onnx_esn.report.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
