import math
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from onnx_esn.calibration import Latency
from onnx_esn.evaluation import Accuracy, Comparison, Evaluation, OutputAgreement
from onnx_esn.numerics.agreement import Agreement
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.inspecting.result import (
    GroupInspection,
    Inspection,
    LayerInspection,
    LockInspection,
    MemberInspection,
    Totals,
    Unresolved,
)
from onnx_esn.report.layout import elide
from onnx_esn.report.tables import comparison_table, group_table, inspection_tables, skipped_table


def render(renderable, width=80):
    console = Console(width=width, force_terminal=False, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    text = capture.get()
    assert "\x1b" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    return text


def row(text, label):
    """The cells of the line that begins with a label."""
    (line,) = [line for line in text.splitlines() if line.startswith(label)]
    return [part.strip() for part in line.removeprefix(label).split("  ") if part.strip()]


def evaluation(name="model.onnx", step=0, *, accuracy=True, latency=True):
    figures = Agreement(
        1 - 0.02 * step, 1 - 0.003 * step, 25.0 - step if step else math.inf, 0.1, 0.1, 2000
    )
    output = OutputAgreement("logits", figures)
    return Evaluation(
        name=name,
        macs=41_500_000 - 4_150_000 * step,
        parameters=272_474,
        esn_prime=41.5e6 * 32 / (1 + 2 * step),
        mean_bits=32 / (1 + 2 * step),
        file_bytes=1_093_412,
        latency=Latency(1.234, 1.2, 1.3, 1 - 0.04 * step) if latency else None,
        outputs=(output,),
        headline=output,
        accuracy=Accuracy(0.804 - 0.005 * step, 0.009, -0.005 * step, 0.003 * step)
        if accuracy
        else None,
    )


def test_two_models_are_before_and_after():
    models = (evaluation("float.onnx"), evaluation("small.onnx", 1))
    text = render(comparison_table(Comparison(models, 0, "eval", 2000, 1)))
    assert "before" in text
    assert "float.onnx" in text
    assert row(text, "MACs") == ["41.5M", "37.4M", "0.900×"]
    assert row(text, "ESN'_d (MAC·bit)") == ["1.33G", "443M", "0.333×"]
    assert row(text, "latency (median)") == ["1.23 ms", "1.23 ms", "0.960×"]
    assert row(text, "top-1 agreement") == ["–", "98.0 %"]
    assert row(text, "SNR") == ["–", "24.0 dB"]
    assert row(text, "accuracy") == ["80.4 ± 0.9 %", "79.9 ± 0.9 %", "−0.5 ± 0.3 pp"]
    assert "2,000 samples of eval" in text


def test_the_reference_stands_before_whatever_its_place():
    models = (evaluation("small.onnx", 1), evaluation("float.onnx"))
    text = render(comparison_table(Comparison(models, 1, "eval", 2000)))
    assert row(text, "MACs") == ["41.5M", "37.4M", "0.900×"]


def test_names_that_repeat_the_headings_are_not_shown_twice():
    models = (evaluation("before"), evaluation("after", 1))
    text = render(comparison_table(Comparison(models, 0, "eval", 2)))
    assert text.splitlines()[0].split() == ["before", "after", "ratio"]
    assert "Agreement with the model before on 2 samples" in text


def test_rows_without_figures_are_left_out():
    models = tuple(evaluation(n, i, accuracy=False, latency=False) for i, n in enumerate("ab"))
    text = render(comparison_table(Comparison(models, 0, "eval", 2)))
    assert "latency" not in text
    assert "accuracy" not in text


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_list_has_one_row_a_model(count):
    models = tuple(evaluation(f"a_model_with_a_long_name_{i}.onnx", i) for i in range(count))
    text = render(comparison_table(Comparison(models, 0, "eval", 2000, 4)))
    assert len([line for line in text.splitlines() if "272k" in line]) == count
    assert "80.4 ± 0.9" in text
    assert "Latency of a batch of 4." in " ".join(text.split())
    assert ("SNR" in text) == (count > 1)


def layer(name, groups=1, bits=None, macs=1_000_000, size=(112, 112)):
    bits = bits or {32: 8}
    return LayerInspection(
        name=name,
        op="ConvTranspose" if groups == 2 else "Conv",
        weight="w",
        filters=1280,
        channels_in=1280,
        channels_out=1280,
        groups=groups,
        kernel=(3, 3),
        output_size=size,
        macs=macs,
        parameters=4608,
        storage="float32",
        storage_bits=32,
        quantized=32 not in bits,
        bits=bits,
        filter_bits=(),
        esn_a=None,
        esn_d=None,
        esn_prime=None if macs is None else 32.0 * macs,
        esn_a_memory=None,
        esn_d_memory=0.0,
        esn_prime_memory=0.0,
    )


def inspection(*layers, groups=None, unresolved=()):
    macs = sum(x.macs or 0 for x in layers)
    totals = Totals(
        layers=len(layers),
        quantized_layers=sum(x.quantized for x in layers),
        macs=macs,
        parameters=4608 * len(layers),
        initializer_bytes=0,
        bits_per_mac=32.0 if macs else None,
        bits_per_weight=32.0,
        esn_a=None,
        esn_d=0.0,
        esn_prime=32.0 * macs,
        esn_a_memory=None,
        esn_d_memory=0.0,
        esn_prime_memory=0.0,
    )
    return Inspection({"x": (1, 3, 8, 8)}, layers, totals, tuple(unresolved), groups)


def test_layers():
    long = "/features/stage.3/inverted_residual.12/depthwise/Conv"
    layers = (
        layer("conv[0]"),
        layer(long, groups=1280, bits={0: 1, 4: 7}),
        layer("up", groups=2),
        layer("lost", macs=None, size=None),
    )
    text = render(inspection_tables(inspection(*layers)))
    assert "conv[0]" in text, "square brackets are no markup"
    assert "thwise/Conv" in text
    assert "…" in text
    assert "dw" in text
    assert "0–4" in text
    assert "ConvT" in text
    assert "33.3%" in text
    assert "1280→1280" in text
    assert "112×112" in text
    (total,) = [line for line in text.splitlines() if line.startswith("total")]
    assert total.split()[1:] == ["3.00M", "18.4k", "32", "96.0M"]


def test_an_input_that_is_a_number():
    found = inspection(layer("a"))
    shapes = {**found.input_shapes, "rate": ()}
    text = render(inspection_tables(replace(found, input_shapes=shapes)))
    assert "(x 1×3×8×8, rate a number)" in " ".join(text.split())


def group(name, members=1, width=8, prunable=8, locks=(), granularity=1):
    layers = tuple(
        MemberInspection(f"{name}.{i}" if i else name, "Conv", width, False) for i in range(members)
    )
    reason = "" if prunable else locks[0].reason
    filters = members * prunable
    return GroupInspection(
        name, layers, width, prunable, reason, filters, granularity, 1_200_000, 0.25, locks
    )


LOCKED = (LockInspection("graph output 'logits'", 10),)
GROUPS = (group("conv", 3), group("fc", width=10, prunable=0, locks=LOCKED))


def test_groups_are_counted_and_what_was_not_counted_is_named():
    missing = [Unresolved("odd", "its shape depends on data")]
    text = render(inspection_tables(inspection(layer("a"), groups=GROUPS, unresolved=missing)))
    assert "2 channel groups; 8 of 18 channels can be removed (--groups lists them)" in text
    assert row(text, "odd") == ["its shape depends on data"]


def test_groups():
    text = render(group_table(GROUPS), 100)
    assert "2 channel groups; 8 of 18 channels can be removed" in text
    assert row(text, "conv +2") == ["8", "8", "1.20M", "25.0%"]
    assert row(text, "fc") == ["10", "0", "1.20M", "25.0%", "graph output 'logits'"]
    assert "at once" not in text
    assert "conv.1" not in text
    text = render(group_table(GROUPS, members=True), 100)
    assert row(text, "  conv.2") == ["8"]
    assert text.count("fc") == 1


def test_groups_that_go_several_at_once_or_are_locked_in_part():
    locks = (LockInspection("steers GridSample 'g'", 2), LockInspection("graph output 'y'", 1))
    text = render(group_table([group("a", prunable=5, locks=locks, granularity=4)]), 120)
    assert row(text, "a")[:5] == ["8", "5", "4", "1.20M", "25.0%"]
    assert "2 of them: steers GridSample 'g', and 1 more reason" in text


@pytest.mark.parametrize("width", [80, 100])
def test_names_of_groups_stay_whole_before_reasons(width):
    names = [f"/_blocks.{i}/_expand_conv/Conv" for i in (1, 12)]
    long = (LockInspection("mixed over its channels in LayerNormalization '/norm/Norm'", 8),)
    groups = [group(names[0], 2, 1152, 1152), group(names[1], 2, 8, 0, long)]
    text = render(group_table(groups), width)
    assert all(f"{name} +1" in text for name in names)
    assert "prunable" in text
    assert "mixed over" in text


def test_a_model_without_groups():
    assert "No channel groups" in render(group_table(()))


def test_skipped_merges_reasons_and_says_how_many_more():
    skipped = [Skipped(f"conv{i}", "too [old]") for i in range(5)]
    skipped += [Skipped("conv0", "too [old]")]
    text = render(skipped_table(skipped))
    assert "and 3 more" in text
    assert "too [old]" in text
    many = [Skipped(f"conv{i}", f"reason {i}") for i in range(13)]
    text = render(skipped_table(many))
    assert "reason 9" in text
    assert "reason 10" not in text
    assert "… and 3 more nodes, for 3 more reasons" in text
    assert skipped_table([]) is None


def test_elide():
    assert elide("short", 8) == "short"
    assert elide("abcdefghij", 7) == "ab…ghij"
    assert elide("abcdefghij", 1) == "…"
    assert elide("abcdefghij", 0) == ""
