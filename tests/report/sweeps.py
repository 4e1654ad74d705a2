"""A sweep's document with invented figures."""

from __future__ import annotations


def sweep_document(metric="accuracy", ratios=(0.0, 0.5), bits=(2, 4, 8), failed=True):
    points = []
    for ratio in ratios:
        for width in bits:
            quality = 0.8 - ratio / 2 - 2.0**-width
            points.append(
                {
                    "ratio": ratio,
                    "bits": width,
                    "status": "done",
                    "esn_prime": 4e7 * (1 - ratio) * width,
                    "accuracy": quality,
                    "accuracy_error": 0.01,
                    "top1": quality,
                    "snr_db": 6.0 * width,
                    "pareto": ratio == 0,
                }
            )
    empty = dict.fromkeys(("esn_prime", "accuracy", "accuracy_error", "top1", "snr_db"))
    if failed:
        points.append({"ratio": 0.9, "bits": 2, "status": "failed", "pareto": False, **empty})
    return {
        "schema": "onnx-esn/sweep/1",
        "model": "model.onnx",
        "images": "calibration",
        "samples": 256,
        "metric": metric,
        "input": {
            "esn_prime": 1.3e9,
            "mean_bits": 32.0,
            "accuracy": 0.8,
            "top1": 1.0,
            "snr_db": None,
        },
        "points": points,
    }
