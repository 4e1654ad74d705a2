"""Documents of sweeps with invented figures."""

from __future__ import annotations


def sweep_document(metric="accuracy", ratios=(0.0, 0.5), bits=(2, 4, 8), failed=True):
    points = []
    for ratio in ratios:
        for width in bits:
            quality = 0.8 - ratio / 2 - 2.0**-width
            points.append(
                {
                    "method": None,
                    "target": None,
                    "ratio": ratio,
                    "bits": width,
                    "status": "done",
                    "macs": round(4e7 * (1 - ratio)),
                    "esn_prime": 4e7 * (1 - ratio) * width,
                    "esn_d": 3e7 * (1 - ratio) * width,
                    "esn_a": 4e7 * (1 - ratio) * 4.0**width / 12,
                    "accuracy": quality,
                    "accuracy_error": 0.01,
                    "top1": quality,
                    "snr_db": 6.0 * width,
                    "pareto": ratio == 0,
                }
            )
    if failed:
        points.append({"ratio": 0.9, "bits": 2, **_failed()})
    return _document(metric, points)


def methods_document(metric="accuracy", targets=(4, 2, 1), methods=None, failed=True):
    """The later a method stands, the better it is; "nearest" collapses at 1 bit."""
    points = []
    methods = methods or ("nearest", "quantize-only", "prune-only", "prune-then-quantize", "joint")
    for rank, method in enumerate(methods):
        for target in targets:
            quality = 0.8 - 0.16 / (1 + rank) / target
            if method == "nearest" and target == 1:
                quality = 0.1
            bits = 8 if method == "prune-only" else target
            widths = {str(b): 0 for b in range(9)} | {"float": 0}
            widths[str(bits)], widths["0"] = 90 - 10 * rank, 10 * rank
            points.append(
                {
                    "method": method,
                    "target": target,
                    "ratio": None,
                    "bits": None,
                    "status": "done",
                    "macs": round(4e7 * target / bits),
                    "esn_prime": 4e7 * target * 0.99,
                    "esn_d": 3e7 * target,
                    "esn_a": 4e7 * target * 4.0**bits / 12,
                    "bit_widths": widths,
                    "accuracy": quality,
                    "accuracy_error": 0.01,
                    "top1": quality,
                    "snr_db": 20 * quality,
                    "pareto": method == "joint",
                }
            )
    if failed:
        points.append({"method": "prune-only", "target": 0.5, **_failed()})
    document = _document(metric, points)
    costs = {"nearest": 1e8, "joint": 5e7}
    document["equal_quality"] = [
        {"level": 0.79, "costs": costs, "best": "joint", "factor": 0.5},
        {"level": 0.75, "costs": {**costs, "nearest": None}, "best": "joint", "factor": None},
        {"level": 0.5, "costs": dict.fromkeys(costs), "best": None, "factor": None},
        {
            "level": 0.45,
            "costs": {**costs, "joint": None},
            "best": "joint",
            "factor": 0.5,
            "at_most": True,
        },
    ]
    return document


def _failed():
    figures = ("macs", "esn_prime", "esn_d", "esn_a", "bit_widths", "accuracy", "accuracy_error")
    empty = dict.fromkeys((*figures, "top1", "snr_db"))
    return {"status": "failed", "reason": "no such cost", "pareto": False, **empty}


def _document(metric, points):
    return {
        "schema": "onnx-esn/sweep/2",
        "model": "model.onnx",
        "images": "calibration",
        "samples": 256,
        "metric": metric,
        "input": {
            "macs": 40_000_000,
            "esn_prime": 1.3e9,
            "esn_d": 1.3e9,
            "esn_a": None,
            "mean_bits": 32.0,
            "accuracy": 0.8,
            "top1": 1.0,
            "snr_db": None,
        },
        "points": points,
    }
