"""Stop a training at random points, resume it each time, and compare it with one left alone.

    python benchmarks/resume_trials.py --stops 200

Two runs of one config (conf/experiment/stress.yaml) on drawn images, on a CPU: averaged weights,
mixup and cutmix, RandAugment, erasing, repeated augmentation and drop path are on. One is left
alone. The other is stopped after a random number of checkpoints and a random moment more, by a
signal (SIGKILL every other time) or, as root, by a full disk, and started again with a random
number of loader workers. At the end every tensor of both last checkpoints must be equal to the bit:
weights, averaged weights, optimiser. Exits with 1 if one is not.

Starts are children of this process, which has imported all they need, so that one takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import semabench.data.ffcv.loader
import semabench.training.run
from semabench.cli import main as semabench

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = ("experiment=stress", "logger=csv", "trainer.accelerator=cpu", "evaluate_at=[]")
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
FULL_DISK = "full disk"


class Start:
    """train.py in a child of this process, its output in a file."""

    def __init__(self, cwd: Path, *options: str) -> None:
        self.log = cwd / "log.txt"
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.chdir(cwd)
            output = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 1
            try:
                sys.argv = [str(REPOSITORY / "train.py"), *OPTIONS, *options]
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Return its exit code."""
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def kill(self, name: str) -> None:
        """Send it a signal, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, signal.Signals[name])


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a disk of 64 MiB at ``place`` where root may; say whether."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill_until_it_ends(run: Start, disk: Path) -> None:
    """Take all the space that a disk has, and what the run gives back, until it has ended."""
    path = disk / "filler"
    while run.poll() is None:
        with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(0.01)
    path.unlink()


def last(root: Path) -> Path | None:
    """Return the run's last checkpoint, if there is one yet."""
    return next(root.rglob("last.ckpt"), None)


def wait_for(process: Start, root: Path, count: int) -> None:
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


def make_images(cwd: Path) -> None:
    """Make the dataset, in a child: packing starts threads, which forks would not survive."""
    if (child := os.fork()) == 0:
        shapes = str(cwd / "data" / "shapes")
        semabench(["data", "shapes", shapes, "--train", "144", "--val", "45", "--size", "96"])
        semabench(["data", "pack", shapes, shapes])
        semabench(["data", "render", shapes, shapes, "--resolution", "32", "--crop-pct", "1.0"])
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the images could not be made")


def stop(run: Start, how: str, disk: Path, draw: random.Random) -> None:
    """Stop a run after a random number of checkpoints, in one of the ways."""
    wait_for(run, disk, draw.randint(0, 8))
    time.sleep(draw.uniform(0, 0.1))
    if how == FULL_DISK:
        fill_until_it_ends(run, disk)
    else:
        run.kill(how)
        run.wait()


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--epochs", type=int, help="of 9 steps (default: 40, or the stops)")
    parser.add_argument("--seed", type=int, default=0, help="of the trial (default: 0)")
    options = parser.parse_args()
    # A shell's background job ignores ctrl-C, and hands that on to what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    cwd = Path(tempfile.mkdtemp(prefix="resume-trials-"))
    make_images(cwd)
    epochs = options.epochs or max(40, options.stops)
    same = (f"recipe.epochs={epochs}", "trainer.save_every_n_steps=2")
    same = (*same, f"trainer.val_every_n_epochs={epochs}")
    alone = Start(cwd, *same, f"output_root={cwd}/alone")
    if alone.wait():
        raise SystemExit(alone.log.read_text())
    disk = cwd / "stopped"
    stops: Counter[str] = Counter()
    with small_disk(disk) as mounted:
        ways = (*SIGNALS, FULL_DISK) if mounted else SIGNALS
        while True:
            workers = draw.choice((1, 2))
            run = Start(cwd, *same, f"output_root={disk}", f"data.num_workers={workers}")
            if stops.total() == options.stops:
                run.wait()
                break
            how = "SIGKILL" if stops.total() % 2 == 0 else draw.choice(ways)
            stop(run, how, disk, draw)
            if run.returncode == 0:
                break
            stops[how] += 1
            path = last(disk)
            step = torch.load(path, weights_only=True)["global_step"] if path else 0
            print(
                f"stop {stops.total()}: {how}, exit code {run.returncode}, {workers} worker(s), "
                f"stored at step {step}",
                flush=True,
            )
        if run.returncode:
            raise SystemExit(run.log.read_text())
        expected, found = (dict(tensors(load(root))) for root in (cwd / "alone", disk))
    differing = [
        name
        for name in expected.keys() | found.keys()
        if name not in expected or name not in found or not torch.equal(expected[name], found[name])
    ]
    each = ", ".join(f"{name} {count}" for name, count in stops.most_common())
    print(
        f"{stops.total()} stops ({each}); {len(expected)} tensors, {len(differing)} differ "
        f"{differing[:5]}"
    )
    shutil.rmtree(cwd)
    return int(bool(differing) or stops.total() < options.stops)


if __name__ == "__main__":
    sys.exit(main())
