"""The failure table of docs/failures.md, row by row: what stops, what is kept, what goes on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from helpers.apps import REPOSITORY, TINY, environment, finish, run_here, start
from helpers.mishaps import SHORT, assert_it_goes_on, at_step, error_line, last
from semabench.errors import SemabenchError
from semabench.training.checkpoint import read_checkpoint
from semabench.training.lock import run_lock
from semabench.training.module import Classifier


def test_a_dead_loader_worker(trained, tmp_path, monkeypatch, capfd):
    """A worker of the folder loader is killed in the second epoch: one, for torch tells of each."""
    arguments = (*SHORT, f"output_root={tmp_path}", "data.loader=folder", "data.source=data/shapes")
    arguments += ("data.num_workers=1",)

    def kill() -> None:
        child = multiprocessing.active_children()[0]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        at_step(patch, 12, kill)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 2
    line = error_line(capfd.readouterr().err)
    assert "a worker of the folder loader failed" in line
    assert read_checkpoint(last(tmp_path))["global_step"] == 9
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 0
    assert read_checkpoint(last(tmp_path))["global_step"] == 36


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for some seven checkpoints."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_at_a_checkpoint(trained, small_disk, monkeypatch, capfd):
    arguments = (*SHORT, f"output_root={small_disk}")

    def fill() -> None:
        with open(small_disk / "filler", "wb") as filler:
            free = shutil.disk_usage(small_disk).free
            filler.write(bytes(free - 200_000))  # less than a checkpoint

    with monkeypatch.context() as patch:
        at_step(patch, 12, fill)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 2
    line = error_line(capfd.readouterr().err)
    assert re.search(r"cannot write .*last\.ckpt: No space left on device", line), line
    assert read_checkpoint(last(small_disk))["global_step"] == 9
    assert not list(small_disk.rglob("*.partial"))
    (small_disk / "filler").unlink()
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)


def test_a_full_disk_between_checkpoints(trained, tmp_path, monkeypatch, capfd):
    """The metrics of a step are the first that find no room."""
    arguments = (*SHORT, f"output_root={tmp_path}", "trainer.log_every_n_steps=1")

    def fail(self: CSVLogger) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        at_step(patch, 12, lambda: patch.setattr(CSVLogger, "save", fail))
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 2
    line = error_line(capfd.readouterr().err)
    assert re.search(r"cannot write to .*/stress/.*: No space left on device; free some", line), (
        line
    )
    assert read_checkpoint(last(tmp_path))["global_step"] == 9
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)


def test_weights_and_biases_unreachable_for_the_whole_run(trained, tmp_path, monkeypatch, capfd):
    arguments = (*SHORT[:-1], f"output_root={tmp_path}", "logger.mode=online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 0
    (run_dir,) = (tmp_path / "stress").iterdir()
    assert (run_dir / "finished.json").exists()
    assert list((run_dir / "wandb").glob("offline-run-*"))
    assert "does not answer: logging offline" in "".join(capfd.readouterr())


@pytest.mark.parametrize("change", ["truncated", "replaced"])
def test_a_packed_file_that_changes_in_mid_run(trained, tmp_path, monkeypatch, capfd, change):
    arguments = (
        *SHORT,
        f"output_root={tmp_path}/outputs",
        f"data.packed={tmp_path}/packed",
    )
    shutil.copytree(trained.cwd / "data" / "shapes", tmp_path / "packed")
    beton = tmp_path / "packed" / "train.beton"
    shutil.copy(beton, tmp_path / "good")

    def spoil() -> None:
        if change == "truncated":
            os.truncate(beton, 4096)
        else:
            shutil.copy(tmp_path / "packed" / "val-32.beton", tmp_path / "other")
            os.replace(tmp_path / "other", beton)

    with monkeypatch.context() as patch:
        at_step(patch, 12, spoil)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 2
    line = error_line(capfd.readouterr().err)
    assert "train.beton has been replaced, changed or removed" in line
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 2
    assert "train.beton is damaged" in error_line(capfd.readouterr().err)
    shutil.copy(tmp_path / "good", beton)
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)


def test_two_jobs_in_one_run_directory(trained, tmp_path, monkeypatch, capfd):
    arguments = (*SHORT, f"output_root={tmp_path}", "name=one")
    with run_lock(tmp_path / "stress" / "one"):
        monkeypatch.setattr("semabench.training.lock.PATIENCE", 0.2)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 2
        line = error_line(capfd.readouterr().err)
        assert f"one is in use by process {os.getpid()} on " in line
        assert [path.name for path in (tmp_path / "stress" / "one").iterdir()] == ["lock"]


def test_clocks_that_disagree(trained, tmp_path, monkeypatch, capfd):
    """Stopped, and its files dated anyhow: the newest by steps goes on, not the newest by date."""
    arguments = (*SHORT, f"output_root={tmp_path}")
    with monkeypatch.context() as patch:
        at_step(patch, 20, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 138
    capfd.readouterr()
    directory = last(tmp_path).parent
    for year, name in ((1971, "last.ckpt"), (2037, "previous.ckpt"), (2038, "best.ckpt")):
        path = directory / name
        path.write_bytes(path.read_bytes())  # a file of its own, no link
        os.utime(path, ((year - 1970) * 31_556_952,) * 2)
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)


#: train.py on a host whose clock is wrong by so many seconds.
_SHIFTED = (
    "import runpy, sys, time; now, by = time.time, float(sys.argv.pop(1)); del sys.argv[0];"
    "time.time = lambda: now() + by; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def two_hosts(root: Path, cwd: Path, clocks: tuple[int, int]) -> list[subprocess.Popen[str]]:
    """Start a training of two hosts of one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "clocks"}
    words = [*SHORT, "recipe.epochs=6", "trainer.num_nodes=2", f"output_root={root}", "name=run"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", _SHIFTED, str(clock), str(REPOSITORY / "train.py"), *words],
            cwd=cwd,
            env=environment() | shared | {"RANK": str(rank), "GROUP_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank, clock in enumerate(clocks)
    ]


def test_two_hosts_whose_clocks_disagree(workplace, tmp_path):
    """By days, and after a kill the other way round: the weights of equal clocks."""
    for host in two_hosts(tmp_path / "equal", workplace, (0, 0)):
        finish(host)
    first, second = two_hosts(tmp_path / "apart", workplace, (10_000, -400_000))
    while first.poll() is None and not list((tmp_path / "apart").rglob("last.ckpt")):
        time.sleep(0.02)
    for host in (first, second):
        host.kill()
        host.communicate()
    first, second = two_hosts(tmp_path / "apart", workplace, (-200_000, 30_000))
    assert "resuming" in finish(first)
    finish(second)
    equal, apart = (read_checkpoint(last(tmp_path / name)) for name in ("equal", "apart"))
    assert equal["global_step"] == apart["global_step"]
    weights = equal["state_dict"]
    assert [n for n in weights if not torch.equal(weights[n], apart["state_dict"][n])] == []


def test_a_loss_that_is_not_finite(trained, tmp_path, monkeypatch, capfd):
    """An image's worth of NaN in mid-run: the checkpoint before it stands and goes on."""
    arguments = (*SHORT, f"output_root={tmp_path}")
    loss = Classifier.training_step

    def spoilt(self: Classifier, *batch: object) -> torch.Tensor:
        step = self.global_step
        found = loss(self, *batch)  # type: ignore[arg-type]
        return found * torch.nan if step == 13 else found

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", spoilt)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 2
    assert "not finite since step 13 (epoch 2" in error_line(capfd.readouterr().err)
    assert read_checkpoint(last(tmp_path))["global_step"] == 9
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)


def test_a_killed_rank(workplace, tmp_path):
    """torchrun ends the other one; the next start goes on."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(REPOSITORY / "train.py"), *SHORT, "trainer.devices=2"]
    command += [f"output_root={tmp_path}", "recipe.epochs=400", "name=ranks"]
    killed = subprocess.Popen(
        command,
        cwd=workplace,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while killed.poll() is None and not list(tmp_path.rglob("previous.ckpt")):
        time.sleep(0.05)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, _ = killed.communicate(timeout=120)
    assert killed.returncode != 0, output
    step = read_checkpoint(last(tmp_path))["global_step"]
    # No process is left that holds the directory; one process goes on where two stood.
    again = [a for a in command[6:] if a != "trainer.devices=2"]
    resumed = start("train.py", *again, cwd=workplace)
    assert resumed.stdout is not None
    lines = iter(resumed.stdout)
    told = next(line for line in lines if "resuming" in line or "error" in line)
    assert "resuming" in told
    epoch = next(line for line in lines if line.startswith("epoch"))
    assert epoch.startswith(f"epoch {step // 9 + 1}/400")
    resumed.send_signal(signal.SIGKILL)
    resumed.communicate()


def test_a_run_started_anew_dies_before_its_first_checkpoint(copied, monkeypatch, capfd):
    """The next start begins the new run, not the old one, whose checkpoints are kept."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checkpoints = copied.run_dir / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}

    def die() -> None:
        raise SemabenchError("power cut")

    arguments = (*TINY, "logger=csv")
    for resume, moves in (("never", True), ("never", False), ("auto", False)):
        with monkeypatch.context() as patch:
            at_step(patch, 0, die)
            capfd.readouterr()
            code = run_here("train.py", *arguments, f"resume={resume}", cwd=copied.cwd, patch=patch)
        told = capfd.readouterr()
        assert (code, error_line(told.err)) == (2, "error: power cut")
        assert "training:" in told.out
        assert ("kept in" in told.out) is moves  # once is enough
        kept = copied.run_dir / "checkpoints.before"
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == before

    with monkeypatch.context() as patch:
        at_step(patch, 10, die)  # the new run has stored its first epoch
        run_here("train.py", *arguments, cwd=copied.cwd, patch=patch)
    assert {p.name for p in checkpoints.iterdir()} <= set(before)
    steps = {read_checkpoint(path)["global_step"] for path in checkpoints.iterdir()}
    assert steps == {9}  # none is the old run's
