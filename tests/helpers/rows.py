"""Rows for the tests of results."""

from semabench.results import Record, accuracy


def row(model: str = "sema_nano", resolution: int = 96, correct: int = 90, **changes) -> Record:
    top1, stderr = accuracy(correct, 100)
    values = {
        "mixer": model.split("_")[0],
        "recipe": "demo",
        "params": 500_000,
        "seed": 0,
        "dataset": "shapes",
        "fingerprint": "f" * 64,
        "classes": 9,
        "n": 100,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "precision": "fp32",
        "device": "cpu",
        "batch_size": 64,
        "time": "2026-01-01T00:00:00Z",
        "top1": top1,
        "top1_stderr": stderr,
        "top5": 99.0,
        "images_per_second": 1000.0,
    }
    return Record(model=model, resolution=resolution, **(values | changes))
