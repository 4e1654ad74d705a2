"""Documents with a report in them, with invented figures and whatever names are asked for."""

from __future__ import annotations

from tests.report.sweeps import methods_document, sweep_document

HASH = "0123456789abcdef" * 4


def report_document(
    layers=4, filters=16, name="layer{}", skipped=(), command=("onnx-esn", "compress"), **more
):
    """As `compress --report` writes it; every fourth filter is gone, the others have 3 bits."""
    names = [name.format(i) for i in range(layers)]
    entries = [_layer(n, filters, i) for i, n in enumerate(names)]
    sums = {side: _sum(entries, side) for side in ("before", "after")}
    report = {
        "schema": "onnx-esn/report/1",
        "command": list(command),
        "version": "0.1.0",
        "model": {"name": name.format("") + ".onnx", "bytes": 1_000_000, "sha256": HASH},
        "output": {"name": "small.onnx", "bytes": 250_000, "sha256": HASH[::-1]},
        **{side: _whole(side, sums[side], layers) for side in sums},
        "layers": entries,
        "groups": [_group(names[i : i + 2], filters) for i in range(0, layers, 2)],
        "samples": 64,
        "notes": [],
        "choice": None,
        "point_commands": [],
    }
    quantize = {"quantized_layers": layers, "filters": layers * filters, "pruned_filters": 0,
                "cost_before": sums["before"]["esn_prime"],
                "cost_after": sums["after"]["esn_prime"], "target": None}  # fmt: skip
    return {
        "schema": "onnx-esn/result/1",
        "command": "compress",
        "outputs": {"model": "small.onnx", "report": "report"},
        "stages": [
            {
                "stage": "quantize",
                "modified": True,
                "details": quantize,
                "skipped": [{"node": node, "reason": reason} for node, reason in skipped],
            },
            {
                "stage": "annotate",
                "modified": True,
                "details": {"annotated": layers},
                "skipped": [],
            },
        ],
        "evaluation": evaluation(sums, images=name.format("")),
        "report": {**report, **more},
    }


def grid_report_document(**options):
    """As `sweep --ratios … --report` has it."""
    return sweep_report_document(sweep_document(), **options)


def sweep_report_document(document=None, **options):
    """As `sweep --report` has it."""
    compressed = report_document(**options)
    document = methods_document() if document is None else document
    report = compressed.pop("report")
    points = document["points"]
    chosen = next(i for i, p in enumerate(points) if p["pareto"])
    report["choice"] = {"index": chosen, "rule": "the cheapest", "result": compressed}
    report["point_commands"] = [
        ["onnx-esn", "compress", f"'model {i}.onnx'", "-o", "small.onnx", "--target-cost", str(i)]
        for i in range(len(points))
    ]
    for point in points:
        for name in ("method", "target", "ratio", "bits"):
            point.setdefault(name, None)
        point.setdefault("file_bytes", 1000)
        point.setdefault("macs", 1000)
    document["input"] = {**document["input"], "file_bytes": 4000}
    document["report"] = report
    return document


def evaluation(sums, images="images"):
    """Accuracy 92.5 → 91.1 %."""
    models = []
    for side, right, lost in (("before", 0.925, 0.0), ("after", 0.911, -0.014)):
        ours = side == "before"
        agreement = {"output": "scores", "top1": 1.0 if ours else 0.972, "cosine": 0.9937,
                     "snr_db": None if ours else 18.2, "kl": 0.01,
                     "normalized_error": 0 if ours else 0.015}  # fmt: skip
        models.append(
            {
                "name": side,
                **sums[side],
                "mean_bits": 32 if ours else 3,
                "file_bytes": 1_000_000 if ours else 250_000,
                "latency": {"median_ms": 0.5 if ours else 0.25, "p10_ms": 0.2, "p90_ms": 0.6,
                            "ratio": 1 if ours else 0.5},
                "agreement": agreement,
                "accuracy": {"value": right, "error": 0.008, "difference": lost,
                             "difference_error": 0.005},
                "outputs": [agreement],
            }
        )  # fmt: skip
    return {"schema": "onnx-esn/evaluation/1", "images": images, "samples": 1000,
            "reference": "before", "latency_batch": 1, "models": models}  # fmt: skip


def _layer(name, filters, index):
    gone = list(range(0, filters, 4))
    left = filters - len(gone)
    snr = 30 - index % 20
    return {
        "name": name,
        "before": _side(name, filters, 32, 1_000_000 + index, quantized=False),
        "after": _side(name, left, 3, 750_000 + index, quantized=True),
        "removed": gone,
        "weight_max_abs": 0.1,
        "weight_snr_db": 20.5,
        "output_snr_db": snr,
        "output_equal": False,
        "reason": "",
        "filters": "".join("x" if i in set(gone) else "3" for i in range(filters)),
    }


def _side(name, filters, bits, macs, *, quantized):
    return {"name": name, "op": "Conv", "filters": filters, "channels_in": 16, "groups": 1,
            "kernel": [3, 3], "macs": macs, "parameters": filters * 144, "storage": "float32",
            "storage_bits": 32, "quantized": quantized, "bits": {str(bits): filters},
            "bits_min": bits, "bits_mean": bits, "bits_max": bits,
            "esn_prime": macs * bits}  # fmt: skip


def _sum(entries, side):
    return {key: sum(e[side][key] for e in entries) for key in ("macs", "parameters", "esn_prime")}


def _whole(name, sums, layers):
    bits = sums["esn_prime"] / sums["macs"] if sums["macs"] else None
    return {"name": name, "nodes": 2 * layers, "layers": layers, **sums, "bits_per_mac": bits,
            "bits_per_weight": bits, "initializer_bytes": 1, "file_bytes": 1_000_000}  # fmt: skip


def _group(names, filters):
    members = [{"node": n, "op": "Conv", "filters": filters, "depthwise": False} for n in names]
    return {"name": names[0], "members": members, "width": filters, "prunable": filters,
            "reason": "", "prunable_filters": filters * len(names), "granularity": 1, "macs": 1,
            "share": 0.5, "locks": []}  # fmt: skip
