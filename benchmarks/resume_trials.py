"""Stop a training at random points, resume it each time, and compare it with one left alone.

    python benchmarks/resume_trials.py --stops 10

Two runs of one config (conf/experiment/stress.yaml) on drawn pictures, on a CPU: averaged weights,
mixup and cutmix, RandAugment, erasing, repeated augmentation and drop path are on. One is left
alone. The other is stopped after a random number of checkpoints and a random moment more (SIGKILL
every other time, else SIGTERM, SIGUSR1 or SIGINT), and started again with a random number of loader
workers. At the end every tensor of both last checkpoints must be equal to the bit: weights,
averaged weights, optimiser. Exits with 1 if one is not.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from semabench.cli import main as semabench

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = ("experiment=stress", "logger=csv", "trainer.accelerator=cpu")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def start(cwd: Path, *options: str) -> subprocess.Popen[str]:
    """Start train.py."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *OPTIONS, *options]
    return subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def last(root: Path) -> Path | None:
    """Return the run's last checkpoint, if there is one yet."""
    return next(root.rglob("last.ckpt"), None)


def wait_for(process: subprocess.Popen[str], root: Path, count: int) -> None:
    """Return when so many checkpoints have been written since the call, or the run has ended."""

    def stamp() -> int:
        path = last(root)
        try:
            return path.stat().st_mtime_ns if path else 0
        except FileNotFoundError:  # just being replaced
            return 0

    seen = {stamp()}
    while process.poll() is None and len(seen) <= count:
        seen.add(stamp())
        time.sleep(0.002)


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in a checkpoint with its place."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from tensors(item, f"{path}/{number}")


def load(root: Path) -> dict[str, Any]:
    """Read what a run ended with."""
    path = last(root)
    assert path is not None
    checkpoint = torch.load(path, weights_only=True)
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "global_step")}


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--epochs", type=int, default=40, help="of 9 steps (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the trial (default: 0)")
    options = parser.parse_args()
    # A shell's background job ignores ctrl-C, and hands that on to what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    draw = random.Random(options.seed)
    cwd = Path(tempfile.mkdtemp(prefix="resume-trials-"))
    shapes = str(cwd / "data" / "shapes")
    semabench(["data", "shapes", shapes, "--train", "144", "--val", "45", "--size", "96"])
    semabench(["data", "pack", shapes, shapes])
    semabench(["data", "render", shapes, shapes, "--resolution", "32", "--crop-pct", "1.0"])
    same = (f"recipe.epochs={options.epochs}", "trainer.save_every_n_steps=2")

    output, _ = start(cwd, *same, f"output_root={cwd}/alone").communicate()
    if not list((cwd / "alone").rglob("finished.json")):
        raise SystemExit(output)
    stops = 0
    while True:
        workers = draw.choice((1, 2))
        run = start(cwd, *same, f"output_root={cwd}/stopped", f"data.num_workers={workers}")
        number = None
        if stops < options.stops:
            wait_for(run, cwd / "stopped", draw.randint(0, 8))
            time.sleep(draw.uniform(0, 0.1))
            number = signal.SIGKILL if stops % 2 == 0 else draw.choice(SIGNALS)
            run.send_signal(number)
        output, _ = run.communicate()
        if number is None or run.returncode == 0:
            break
        stops += 1
        path = last(cwd / "stopped")
        step = torch.load(path, weights_only=True)["global_step"] if path else 0
        print(
            f"stop {stops}: {number.name}, exit code {run.returncode}, {workers} worker(s), "
            f"stored at step {step}",
            flush=True,
        )
    if run.returncode:
        raise SystemExit(output)
    expected = dict(tensors(load(cwd / "alone")))
    found = dict(tensors(load(cwd / "stopped")))
    differing = [
        name
        for name in expected.keys() | found.keys()
        if name not in expected or name not in found or not torch.equal(expected[name], found[name])
    ]
    print(f"{stops} stops; {len(expected)} tensors, {len(differing)} differ {differing[:5]}")
    shutil.rmtree(cwd)
    return int(bool(differing) or stops < options.stops)


if __name__ == "__main__":
    sys.exit(main())
