"""train.py itself under several settings in turn: img/s, waiting for data, the GPU's work.

    python benchmarks/step.py PACKED --model sema_tiny --resolution 128 --out DIR \\
        --settings "trainer.graph=false trainer.compile=false" "trainer.compile=false"

PACKED holds what ``semabench data pack`` and ``render`` made of any image folder. Every setting is
a run of train.py with the recipe `common` on one device, A B A B; a run's figure is the median over
its looks at the clock, of which the first are left out. ``busy_ms`` is the time in which kernels or
copies run in a step, by torch's profiler in a run of its own. One row a run goes to DIR/step.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from semabench.evaluation.cost.meters import ON_DEVICE, busy_of

REPOSITORY = Path(__file__).resolve().parents[1]
LOOK = 10  # steps between two looks at the clock
WARM = 4  # looks left out


def start(options: argparse.Namespace, setting: str, root: Path, *more: str) -> tuple[Path, float]:
    """Train; return the run's directory and the seconds from start to end."""
    overrides = [
        f"model={options.model}", "data=clothing10", f"data.packed={options.packed}",
        f"data.resolution={options.resolution}", "recipe=common", f"seed={options.seed}",
        f"recipe.batch_size={options.batch}", f"recipe.epochs={options.epochs}",
        "recipe.warmup_epochs=1", "logger=csv", "trainer.val_every_n_epochs=9999",
        f"trainer.log_every_n_steps={LOOK}", "evaluate_at=[]", f"output_root={root}",
        "name=run", *setting.split(), *options.overrides, *more,
    ]  # fmt: skip
    began = time.perf_counter()
    command = [sys.executable, str(REPOSITORY / "train.py"), *overrides]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return root / "default" / "run", time.perf_counter() - began


def measured(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of a run's looks."""
    with open(next(run.glob("csv/*/metrics.csv"))) as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/images_per_second")]
    rows = rows[WARM:]
    if len(rows) < 3:
        sys.exit(f"{run}: too few looks; give more --epochs")
    speed, wait, memory = (
        [float(row[f"train/{name}"]) for row in rows if row.get(f"train/{name}")]
        for name in ("images_per_second", "data_wait_percent", "memory_gib")
    )
    median = statistics.median(speed)
    return {
        "images_per_second": median,
        "step_ms": 1e3 * options.batch / median,
        "looks": len(speed),
        "lowest": min(speed),
        "highest": max(speed),
        "data_wait_percent": statistics.median(wait),
        "memory_gib": max(memory, default=None),
    }


def busy(run: Path, steps: int) -> dict[str, float]:
    """Return the milliseconds of the device's work in a step of a trace, and its kernels."""
    trace = json.loads(next((run / "profile").glob("*.json")).read_text())
    done = [event for event in trace["traceEvents"] if event.get("cat") in ON_DEVICE]
    return {"busy_ms": busy_of(done) / steps, "kernels": len(done) / steps}


def main() -> None:
    """Parse the command line, run in turn, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packed", type=Path)
    parser.add_argument("--model", default="sema_tiny")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--busy", action="store_true", help="trace the last setting, too")
    parser.add_argument("--settings", nargs="+", default=["trainer.graph=false", ""])
    parser.add_argument("--overrides", nargs="*", default=[], help="of all runs")
    parser.add_argument("--out", type=Path, default=Path("outputs/step"))
    options = parser.parse_args()
    options.packed = options.packed.resolve()
    import torch

    from semabench.results.record import git_commit

    gpu = torch.cuda.is_available()
    about = {
        "model": options.model, "resolution": options.resolution, "batch": options.batch,
        "device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__,
        "commit": git_commit(),
    }  # fmt: skip
    plan = [(s, r, False) for r in range(options.rounds) for s in options.settings]
    plan += [(options.settings[-1], options.rounds, True)] if options.busy else []
    for setting, number, traced in plan:
        with tempfile.TemporaryDirectory() as folder:
            more = ["trainer.profile_steps=5"] if traced else []
            run, seconds = start(options, setting, Path(folder), *more)
            row = about | {"setting": setting, "round": number, "run_seconds": seconds}
            row |= busy(run, 5) if traced else measured(run, options)
        print(json.dumps(row), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "step.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
