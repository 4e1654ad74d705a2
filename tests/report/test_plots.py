import subprocess
import sys

import pytest

from onnx_esn.errors import OptionError, OutputError
from onnx_esn.report.bit_width_plot import chosen_target, draw_bit_widths
from onnx_esn.report.pareto_plot import draw_pareto
from onnx_esn.report.plots import bit_width_plot, pareto_plot, plot_sweep

from .sweeps import methods_document, sweep_document

HIDE = "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.style'] = None; "


@pytest.mark.parametrize("metric", ["accuracy", "top1", "snr_db"])
@pytest.mark.parametrize("document", [sweep_document, methods_document])
def test_metrics(document, metric):
    axes = draw_pareto(document(metric)).axes[0]
    assert axes.get_ylabel().endswith("(dB)" if metric == "snr_db" else "(%)")
    labels = [line.get_label() for line in axes.get_lines()]
    assert any("input model" in label for label in labels) == (metric != "snr_db")


def test_files(tmp_path):
    paths = plot_sweep(sweep_document(), tmp_path)
    names = ["pareto", "pareto_esn_d", "pareto_esn_a"]
    assert [p.name for p in paths] == [f"{n}.{kind}" for n in names for kind in ("png", "svg")]
    check_images(paths)


def test_files_of_methods(tmp_path):
    paths = plot_sweep(methods_document(), tmp_path)
    names = ["pareto", "pareto_esn_d", "pareto_esn_a", "bit_widths"]
    assert [p.name for p in paths] == [f"{n}.{kind}" for n in names for kind in ("png", "svg")]
    check_images(paths)


def check_images(paths):
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")


def test_costs_that_no_point_has_are_not_drawn(tmp_path):
    document = sweep_document()
    for point in document["points"]:
        point["esn_a"] = point["esn_d"] = None
    assert [path.name for path in plot_sweep(document, tmp_path)] == ["pareto.png", "pareto.svg"]


def test_the_same_colours_whichever_methods_there_are():
    def colours(methods):
        axes = draw_pareto(methods_document(methods=methods)).axes[0]
        lines = [line for line in axes.get_lines() if "input" not in line.get_label()]
        return {line.get_label(): line.get_color() for line in lines}

    few, all_of_them = colours(("joint",)), colours(None)
    assert few["joint"] == all_of_them["joint"]
    assert len(set(all_of_them.values())) == len(all_of_them)


def test_a_collapsed_point_does_not_flatten_the_others():
    axes = draw_pareto(methods_document()).axes[0]
    assert axes.get_ylim()[0] > 50
    assert [text.get_text() for text in axes.texts if "↓" in text.get_text()] == ["↓ 10 %"]


def test_front_of_each_cost():
    document = methods_document(methods=("quantize-only", "joint"), targets=(2, 1), failed=False)
    for point in document["points"]:
        point["esn_a"] = 1.0 if point["method"] == "quantize-only" else 2.0
    axes = draw_pareto(document, "esn_a").axes[0]
    (front,) = [line for line in axes.get_lines() if line.get_label() == "Pareto front"]
    assert list(front.get_xdata()) == [1.0, 2.0]


def test_target_of_the_histogram():
    assert chosen_target(methods_document(targets=(4, 3, 1))) == 1
    assert chosen_target(methods_document(targets=(4, 2, 1))) == 2
    document = methods_document(targets=(4, 2))
    document["points"][1].update(bit_widths=None, status="failed")
    assert chosen_target(document) == 4
    assert chosen_target(sweep_document()) is None


def test_histogram_has_a_panel_for_each_method():
    figure = draw_bit_widths(methods_document(), 2)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 5
    heights = [bar.get_height() for bar in shown[-1].patches]
    assert heights == [40, 0, 50, 0, 0, 0, 0, 0, 0]


def test_the_same_document_gives_the_same_bytes(tmp_path):
    import matplotlib

    document = methods_document(targets=(2,))

    def both(folder):
        folder.mkdir()
        paths = [folder / name for name in ("a.png", "a.svg", "b.png", "b.svg")]
        pareto_plot(document, *paths[:2])
        bit_width_plot(document, *paths[2:], target=2)
        return [path.read_bytes() for path in paths]

    first = both(tmp_path / "first")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        assert both(tmp_path / "second") == first
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("bits", [(4,), (4, 5)])
def test_a_narrow_range_of_cost_has_ticks(tmp_path, bits):
    document = sweep_document(ratios=(0.0,), bits=bits, failed=False)
    document["input"]["esn_prime"] = 4e8
    figure = draw_pareto(document)
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
