"""A run's weights are found, told apart, and named by the file that was read."""

from __future__ import annotations

import hashlib

import pytest
import torch

from helpers.checkpoint_makers import save
from semabench.errors import SemabenchError
from semabench.training.checkpoint import load_trained


def test_a_folder_of_runs_is_told_from_a_run(tmp_path):
    with pytest.raises(SemabenchError, match="there is no checkpoint"):
        load_trained(tmp_path)
    save(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(SemabenchError, match=r"name a run, e\.g\. .*/run\."):
        load_trained(tmp_path)


def test_a_checkpoint_of_somebody_elses_is_refused(tmp_path):
    save(tmp_path / "theirs.ckpt")
    with pytest.raises(SemabenchError, match=r"model\.checkpoint=PATH"):
        load_trained(tmp_path / "theirs.ckpt")


def test_plain_and_averaged_weights_are_told_apart(tmp_path):
    state = {"model.w": torch.ones(1), "ema.module.w": torch.zeros(1), "other": torch.ones(1)}
    loops = {"fit_loop": {"epoch_progress": {"current": {"processed": 5}}}}
    save(tmp_path / "checkpoints" / "last.ckpt", state_dict=state, semabench={"a": 1}, loops=loops)
    trained = load_trained(tmp_path)
    assert trained.epochs == 5
    assert trained.describe == {"a": 1}
    assert set(trained.weights) == {"model", "ema"}
    assert float(trained.weights["ema"]["w"]) == 0


def test_of_a_run_the_newest_sound_checkpoint_is_taken(tmp_path, caplog):
    checkpoints = tmp_path / "checkpoints"
    for step, name in enumerate(("best.ckpt", "previous.ckpt", "last.ckpt")):
        loops = {"fit_loop": {"epoch_progress": {"current": {"processed": step}}}}
        save(checkpoints / name, state_dict={}, semabench={}, loops=loops, global_step=step)
    assert load_trained(tmp_path).path == checkpoints / "last.ckpt"
    whole = (checkpoints / "last.ckpt").read_bytes()
    (checkpoints / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    trained = load_trained(tmp_path)
    assert (trained.path, trained.epochs) == (checkpoints / "previous.ckpt", 1)
    assert "It is skipped" in caplog.text
    for name in ("best.ckpt", "previous.ckpt"):
        (checkpoints / name).write_bytes(b"")
    with pytest.raises(SemabenchError, match=r"last\.ckpt"):
        load_trained(tmp_path)


def test_a_checkpoint_replaced_while_it_is_read_is_the_old_one_throughout(tmp_path, monkeypatch):
    """An evaluation takes no lock: its row names the weights that it measured."""
    path = tmp_path / "last.ckpt"

    def write(epochs):
        loops = {"fit_loop": {"epoch_progress": {"current": {"processed": epochs}}}}
        save(path, state_dict={"model.w": torch.tensor(epochs)}, semabench={}, loops=loops)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    old, load, new = write(1), torch.load, []

    def meanwhile(file, **options):
        new.append(write(2))  # before a byte is read
        loaded = load(file, **options)
        new.append(write(3))  # and before the digest
        return loaded

    monkeypatch.setattr(torch, "load", meanwhile)
    trained = load_trained(path)
    assert (trained.digest, trained.epochs, int(trained.weights["model"]["w"])) == (old, 1, 1)
    monkeypatch.undo()
    assert load_trained(path).digest == new[-1] != old
