"""Rows of every measure, and what a page made of them holds."""

import json
import re
from dataclasses import replace

from helpers.rows import row
from semabench.evaluation.accuracy import views as accuracy
from semabench.evaluation.cost import views as cost_views
from semabench.evaluation.dispersion import views as dispersion
from semabench.results import Record
from semabench.study import views as study

VIEWS = [accuracy.VIEW, cost_views.VIEW, dispersion.VIEW, study.VIEW]

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


def cost(model="sema_nano", resolution=64, speed=1000.0, **changes) -> Record:
    values = {
        "measure": "cost",
        "mixer": model.split("_")[0],
        "params": 500_000,
        "gmacs": 0.5,
        "precision": "bf16-mixed",
        "backend": "sdpa",
        "device": "Some GPU",
        "mode": "infer",
        "execution": "eager",
        "batch_size": 64,
        "rounds": 3,
        "images_per_second": speed,
        "images_per_second_spread": 5.0,
        "latency_ms": 64e3 / speed,
        "latency_ms_spread": 0.1,
        "peak_memory_mib": 100.0 * (resolution / 64) ** 2,
        "time": "2026-01-01T00:00:00Z",
    }
    return Record(model=model, resolution=resolution, **(values | changes))


def grid(**changes):
    """Linear cost against quadratic: they cross between 128 and 256 px."""
    return [
        cost(model, r, speed, **changes)
        for r in (64, 128, 256)
        for model, speed in (
            ("sema_nano", 1e3 * (64 / r) ** 2),
            ("vit_nano", 8e3 * (64 / r) ** 4),
        )
    ]


def random_row(kernel="softmax", n=49, seed=0, bound=1.0, **changes) -> Record:
    values = {
        "measure": "dispersion",
        "mixer": kernel,
        "dataset": "random",
        "input_bound": bound,
        "input_dim": 32,
        "input_values": "keys",
        "seed": seed,
        "tokens": n,
        "keys": n,
        "queries": min(n, 256),
        "n_max_weight": 2.0 + seed,
        "n_max_weight_highest": 4.0 + seed,
        "weight_bound": 9.0,
        "entropy_ratio": 0.9,
        "effective_keys": 0.9 * n,
        "weight_sum": 1.0,
        "mean_distance": 0.1,
        "time": "2026-01-01T00:00:00Z",
    }
    return Record(model=kernel, resolution=int(n**0.5), **(values | changes))


def head_row(layer="stages.0.blocks.0.mixer", mixer="sema") -> Record:
    return replace(
        random_row("sema_nano", 256, mixer=mixer, dataset="shapes", layer=layer, head=0),
        fingerprint="f" * 64,
        n=8,
        resolution=64,
    )


def rows():
    seeds = [
        row("sema_nano", size, 60 + size // 8 + 2 * seed, seed=seed, checkpoint=f"abc{seed}")
        for size in (64, 96)
        for seed in (0, 1, 2)
    ]
    lone = [row("mila_nano", size, 70, gmacs=size / 1000) for size in (64, 96)]
    return [*seeds, *lone, *grid(), random_row(), random_row(n=256), head_row()]


def figures_of(text: str) -> dict:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    found = json.loads(data)  # by name; their numbers tell their order on the page
    return dict(sorted(found.items(), key=lambda item: int(item[0].rsplit("-", 1)[1])))


def study_row(task="needle", mixer="sema", seed=0, resolution=128, top1=50.0, **changes) -> Record:
    values = {
        "measure": "study",
        "config": "c",
        "seed": seed,
        "dataset": task,
        "fingerprint": f"{task} v1, clear 3",
        "tested_on": "test",
        "test_seed": 0,
        "classes": 8,
        "n": 512,
        "tokens": (resolution // 8) ** 2,
        "device": "cpu",
        "top1": top1,
        "top1_stderr": 2.0,
        "train_resolutions": (96, 128),
        "depth": 1,
        "readout": "query",
        "time": "2026-01-01T00:00:00Z",
    }
    return Record(model="probe_nano", mixer=mixer, resolution=resolution, **(values | changes))
