"""Training through the command line: what it leaves behind, and what survives kill -9."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.apps import REPOSITORY, TINY, environment, run_here, start
from helpers.offline_run import read_offline_run
from semabench.results.store import read_rows


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    path = run_dir / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_leaves_config_checkpoints_and_one_row_a_resolution(trained):
    names = {path.name for path in trained.run_dir.iterdir()}
    assert {"config.yaml", "checkpoints", "results.jsonl", "finished.json"} <= names
    assert {p.name for p in (trained.run_dir / "checkpoints").iterdir()} == {
        "last.ckpt",
        "previous.ckpt",
        "best.ckpt",
    }
    assert json.loads((trained.run_dir / "finished.json").read_text())["epochs"] == 4
    rows = read_rows(trained.run_dir / "results.jsonl")
    assert [row.resolution for row in rows] == [32, 48]
    for row in rows:
        assert (row.n, row.classes, row.weights, row.epochs) == (45, 9, "ema", 4)
        assert (row.recipe, row.mixer, row.backend) == ("stress", "sema", "sdpa")
        assert row.peak_memory_mib is not None
        assert row.peak_memory_mib > 0
    assert trained.output.count("epoch ") == 4


def test_the_weights_and_biases_run_holds_training_and_evaluation(trained):
    runs = sorted((trained.run_dir / "wandb").glob("offline-run-*"))
    training, evaluation = (read_offline_run(path) for path in runs)
    run_id = (trained.run_dir / "wandb_id").read_text().strip()
    assert all(path.name.endswith(run_id) for path in runs)
    assert training["config"]["recipe"]["epochs"] == 4
    assert any("val_ema/top1" in row for row in training["history"])
    assert any("train/loss" in row for row in training["history"])
    measured = {
        row["eval/resolution"]: row["eval/top1"]
        for row in evaluation["history"]
        if "eval/top1" in row
    }
    stored = {r.resolution: r.top1 for r in read_rows(trained.run_dir / "results.jsonl")}
    assert measured == pytest.approx(stored)
    for path in trained.run_dir.rglob("*"):
        if path.is_file():
            assert b"planted-environment-value" not in path.read_bytes(), path


def test_a_finished_run_is_not_trained_or_measured_again(copied, monkeypatch, capfd):
    before = (copied.run_dir / "results.jsonl").read_bytes()
    assert run_here("train.py", *TINY, cwd=copied.cwd, patch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert "finished already" in output
    assert output.count("measured before") == 2
    assert (copied.run_dir / "results.jsonl").read_bytes() == before
    assert len(list((copied.run_dir / "wandb").glob("offline-run-*"))) == 2


def wait_for_checkpoints(run: subprocess.Popen[str], root: Path, count: int) -> None:
    """Return when ``last.ckpt`` has been written that often, as seen by its inode."""
    seen: set[int] = set()
    while run.poll() is None and len(seen) < count:
        seen |= {path.stat().st_mtime_ns for path in root.rglob("last.ckpt")}
        time.sleep(0.005)


def assert_same_weights(expected_dir: Path, found_dir: Path) -> None:
    expected, found = weights(expected_dir), weights(found_dir)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_killed_between_epochs_and_resumed_the_weights_are_the_same_bits(
    trained, tmp_path, monkeypatch, capfd
):
    output_root = tmp_path / "outputs"
    arguments = (*TINY, f"output_root={output_root}", "logger=csv", "data.num_workers=1")
    killed = start("train.py", *arguments, cwd=trained.cwd)
    wait_for_checkpoints(killed, output_root, 3)
    time.sleep(0.1)  # into the next epoch
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (run_dir,) = (output_root / "stress").iterdir()
    assert not (run_dir / "finished.json").exists()
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 0
    assert "resuming" in capfd.readouterr().out
    assert_same_weights(trained.run_dir, run_dir)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_stopped_at_any_step_and_resumed_the_weights_are_the_same_bits(
    trained, tmp_path, monkeypatch, capfd, number
):
    output_root = tmp_path / "outputs"
    arguments = (*TINY, f"output_root={output_root}", "logger=csv", "trainer.save_every_n_steps=1")
    stopped = start("train.py", *arguments, cwd=trained.cwd)
    wait_for_checkpoints(stopped, output_root, 13)  # in the second epoch of 9 steps
    stopped.send_signal(number)
    output, _ = stopped.communicate(timeout=60)
    (run_dir,) = (output_root / "stress").iterdir()
    step = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    if number == signal.SIGUSR1:
        assert stopped.returncode == 138
        assert f"stopped by SIGUSR1 at step {step} of 36; the same command resumes" in output
    assert 13 <= step < 36
    assert step % 9, "the signal came between two epochs, where there is less to show"
    # Other workers, other checkpoints: the run stays the same.
    arguments = (*arguments[:-1], "data.num_workers=1")
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 0
    resumed = capfd.readouterr().out
    assert "resuming" in resumed
    assert not re.search(r"\b0 img/s", resumed)
    assert_same_weights(trained.run_dir, run_dir)


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM at step")],
)
def test_a_stopped_run_says_so_and_is_no_success(workplace, tmp_path, number, code, message):
    arguments = (*TINY, "recipe.epochs=500", f"output_root={tmp_path}", "logger=csv")
    stopped = start("train.py", *arguments, cwd=workplace)
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if line.startswith("epoch 2/"):
            stopped.send_signal(number)
            break
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == code
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert message in error
    assert list(tmp_path.rglob("last.ckpt"))
    assert not list(tmp_path.rglob("finished.json"))


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(copied, monkeypatch, capfd):
    (copied.run_dir / "finished.json").unlink()
    last = copied.run_dir / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.unlink()  # it may be one file with best.ckpt
    last.write_bytes(content[: len(content) // 2])
    code = run_here("train.py", *TINY, "logger=csv", cwd=copied.cwd, patch=monkeypatch)
    assert code == 0
    assert re.search(r"resuming .*(previous|best)\.ckpt", capfd.readouterr().out)
    assert (copied.run_dir / "finished.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    workplace, tmp_path, monkeypatch, capfd
):
    arguments = (*TINY, f"output_root={tmp_path}", "logger=csv", "recipe.lr=1e30")
    arguments += ("recipe.clip_grad=null", "recipe.warmup_epochs=0")
    assert run_here("train.py", *arguments, cwd=workplace, patch=monkeypatch) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error:")]
    assert re.search(r"not finite since step \d+ \(epoch 1, learning rate [\d.]+e\+\d+\)", line)
    assert not list(tmp_path.rglob("*.ckpt*"))


def test_two_processes_validate_every_sample_once(workplace, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [
            *command,
            str(REPOSITORY / "train.py"),
            *TINY,
            "recipe.epochs=2",
            "trainer.devices=2",
            "logger=csv",
            "evaluate_at=[32]",
            f"output_root={tmp_path}",
        ],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run_dir,) = (tmp_path / "stress").iterdir()
    (row,) = read_rows(run_dir / "results.jsonl")
    metrics = json.loads((run_dir / "finished.json").read_text())["metrics"]
    # 45 pictures on two ranks of batches of 8: a rank counting its padding would be off by 1/45.
    assert metrics["val_ema/top1"] == pytest.approx(row.top1)
    assert metrics["val_ema/top5"] == pytest.approx(row.top5)
    assert (row.n, row.weights) == (45, "ema")


def test_two_processes_stop_at_the_same_step(workplace, tmp_path):
    """As srun starts and signals them; the first is told later than the second."""
    arguments = [*TINY, "recipe.epochs=500", "trainer.devices=2", "trainer.log_every_n_steps=2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        start(
            "train.py",
            *arguments,
            "logger=csv",
            f"output_root={tmp_path}",
            cwd=workplace,
            RANK=rank,
            LOCAL_RANK=rank,
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            TORCHELASTIC_RUN_ID="none",
        )
        for rank in "01"
    ]
    wait_for_checkpoints(ranks[0], tmp_path, 2)
    for process in reversed(ranks):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    outputs = [process.communicate(timeout=60)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [143, 143], outputs
    (path,) = tmp_path.rglob("last.ckpt")
    step = torch.load(path, weights_only=True)["global_step"]
    assert f"stopped by SIGTERM at step {step} of" in outputs[0]
    assert "error" not in outputs[1]


def test_more_devices_than_processes_is_told(workplace, tmp_path, monkeypatch, capfd):
    arguments = (*TINY, "trainer.devices=2", f"output_root={tmp_path}")
    assert run_here("train.py", *arguments, cwd=workplace, patch=monkeypatch) == 2
    assert "torchrun --nproc-per-node 2" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
