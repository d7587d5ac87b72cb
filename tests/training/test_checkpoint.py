"""Checkpoints are whole or absent, and the newest sound one is found."""

from __future__ import annotations

import errno
import hashlib
import os
from types import SimpleNamespace

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.training.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    load_trained,
    read_checkpoint,
    set_aside,
)


def save(path, **content):
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 0, **content}, path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save(path, value=1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SemabenchError, match="No space left"):
        save(path, value=2)
    assert read_checkpoint(path)["value"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_checkpoint_is_named_as_damaged(tmp_path, keep):
    path = tmp_path / "last.ckpt"
    save(path, weights=torch.zeros(1000))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SemabenchError, match=r"last\.ckpt is damaged"):
        read_checkpoint(path)


def test_one_wrong_byte_among_the_weights_is_damage(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path, weights=torch.full((1000,), 3.0))
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 3.0).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(SemabenchError, match=r"is damaged \(the sum of .* differs"):
        read_checkpoint(path)


def test_a_folder_of_runs_is_told_from_a_run(tmp_path):
    with pytest.raises(SemabenchError, match="there is no checkpoint"):
        load_trained(tmp_path)
    save(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(SemabenchError, match=r"name a run, e\.g\. .*/run\."):
        load_trained(tmp_path)


def test_a_file_that_is_no_checkpoint_is_told_as_such(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00.")
    with pytest.raises(SemabenchError, match="no checkpoint of train"):
        read_checkpoint(path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(SemabenchError, match="damaged"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


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


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    module = torch.nn.Linear(2, 2)
    module.weight.data[0, 0] = torch.nan
    trainer = SimpleNamespace(
        callback_metrics={}, current_epoch=2, global_step=27, lightning_module=module
    )
    with pytest.raises(SemabenchError, match="weight is not finite in epoch 3, at step 27"):
        Checkpoints(tmp_path, "val/top1").on_train_epoch_end(trainer, module)
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_before_the_last_stays(tmp_path):
    module = torch.nn.Linear(2, 2)
    steps = iter([1, 2, 3])
    trainer = SimpleNamespace(
        is_global_zero=True,
        lightning_module=module,
        save_checkpoint=lambda path: save(path, global_step=next(steps)),
    )
    checkpoints = Checkpoints(tmp_path, "val/top1")
    found = []
    for _ in range(3):
        checkpoints.save(trainer)
        names = sorted(path.name for path in tmp_path.iterdir())
        found.append({name: read_checkpoint(tmp_path / name)["global_step"] for name in names})
    assert found == [
        {"last.ckpt": 1},
        {"last.ckpt": 2, "previous.ckpt": 1},
        {"last.ckpt": 3, "previous.ckpt": 2},
    ]


def test_checkpoints_are_set_aside_but_not_behind_a_link(tmp_path):
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    for directory in (run / "checkpoints", scratch):
        directory.mkdir(parents=True)
        save(directory / "last.ckpt")
    kept = set_aside(run / "checkpoints")
    assert kept == run / "checkpoints.before"
    assert [path.name for path in kept.iterdir()] == ["last.ckpt"]
    (run / "checkpoints").symlink_to(scratch)
    with pytest.raises(SemabenchError, match=r"is a link.*output_root"):
        set_aside(run / "checkpoints")
    assert (scratch / "last.ckpt").exists()
    assert (kept / "last.ckpt").exists()
