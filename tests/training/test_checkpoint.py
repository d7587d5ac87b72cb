"""Checkpoints are whole or absent, and the one before the last stays."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest
import torch

from helpers.checkpoint_makers import save
from semabench.errors import SemabenchError
from semabench.training.checkpoint import Checkpoints, read_checkpoint, set_aside


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
