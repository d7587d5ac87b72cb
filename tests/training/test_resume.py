"""A run goes on from its newest sound checkpoint, and from no other run's."""

from __future__ import annotations

import os

import pytest

from helpers.checkpoint_makers import save
from semabench.errors import SemabenchError
from semabench.training.checkpoint import check_same_run, resume_path


def test_resuming_takes_the_newest_sound_checkpoint(tmp_path, caplog):
    directory = tmp_path / "checkpoints"
    assert resume_path("auto", tmp_path) is None
    save(directory / "best.ckpt", global_step=10)
    assert resume_path("auto", tmp_path) == directory / "best.ckpt"
    save(directory / "last.ckpt", global_step=30)
    os.utime(directory / "last.ckpt", (1, 1))  # clocks of nodes differ: the name tells
    assert resume_path("auto", tmp_path) == directory / "last.ckpt"
    assert caplog.text == ""
    assert resume_path("never", tmp_path) is None
    with pytest.raises(SemabenchError, match="no checkpoint"):
        resume_path(str(tmp_path / "other.ckpt"), tmp_path)
    with pytest.raises(SemabenchError, match="auto and never are known"):
        resume_path("nevr", tmp_path)


@pytest.mark.parametrize(
    ("damaged", "previous_step", "found"),
    [
        ({"last.ckpt"}, 20, "previous.ckpt"),
        ({"last.ckpt"}, 5, "best.ckpt"),  # where links cannot be had, a copy of the last
        ({"previous.ckpt", "best.ckpt"}, 20, "last.ckpt"),
        ({"last.ckpt", "previous.ckpt"}, 20, "best.ckpt"),
        ({"last.ckpt", "best.ckpt"}, 20, "previous.ckpt"),
        ({"last.ckpt", "previous.ckpt", "best.ckpt"}, 20, None),
    ],
)
def test_damaged_checkpoints_are_skipped_with_a_warning(
    tmp_path, caplog, damaged, previous_step, found
):
    directory = tmp_path / "checkpoints"
    for name, step in (("last.ckpt", 30), ("previous.ckpt", previous_step), ("best.ckpt", 10)):
        save(directory / name, global_step=step)
    for name in damaged:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: len(content) // 2])
    if found:
        assert resume_path("auto", tmp_path) == directory / found
        # And those of another run, by its name.
        assert resume_path(str(tmp_path), tmp_path / "other") == directory / found
    else:  # nothing is overwritten by a run that starts from zero
        with pytest.raises(SemabenchError, match=r"can be read: bring one back, or .*resume=never"):
            resume_path("auto", tmp_path)
        with pytest.raises(SemabenchError, match="is no run's directory: it has no checkpoint"):
            resume_path(str(tmp_path), tmp_path / "other")
    if "last.ckpt" in damaged:  # told at each of the two looks
        assert caplog.text.count("is damaged") == 2 * len(damaged)
        assert caplog.text.count("It is skipped") == 2 * len(damaged)


def describe(**changes):
    model = {"name": "sema_nano", "mixer": None, "options": {}, **changes.pop("model", {})}
    config = {
        "model": model,
        "data": {"resolution": 48, "packed": "here"},
        "recipe": {"lr": 1},
        "trainer": {"precision": "32-true", "devices": 1},
        "seed": 0,
        **changes.pop("config", {}),
    }
    return {"config": config, "classes": ["a"], "fingerprint": "f", **changes}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": {"name": "mila_nano"}}, r"model\.name sema_nano, not mila_nano"),
        ({"model": {"mixer": "linear"}}, r"model\.mixer None, not linear"),
        ({"model": {"options": {"window_size": 3}}}, r"model\.options\.window_size None, not 3"),
        ({"config": {"seed": 1}}, "seed 0, not 1"),
        ({"config": {"recipe": {"lr": 2}}}, r"recipe\.lr 1, not 2"),
        ({"config": {"data": {"resolution": 64}}}, r"data\.resolution 48, not 64"),
        ({"config": {"trainer": {"precision": "bf16-mixed"}}}, "precision 32-true, not bf16"),
        ({"classes": ["a", "b"]}, "classes"),
        ({"fingerprint": "g"}, "training images"),
    ],
)
def test_another_runs_checkpoint_is_not_resumed(tmp_path, changes, what):
    path = tmp_path / "last.ckpt"
    save(path, semabench=describe())
    check_same_run(path, describe())
    elsewhere = {"resolution": 48, "packed": "there"}
    check_same_run(path, describe(config={"data": elsewhere}))
    with pytest.raises(SemabenchError, match=what):
        check_same_run(path, describe(**changes))
    with pytest.raises(SemabenchError, match=f"model.checkpoint={path}"):  # not "another name"
        check_same_run(path, describe(**changes), chosen=True)


def test_another_packing_of_the_same_images_is_another_run(tmp_path):
    path, old = tmp_path / "a.ckpt", tmp_path / "old.ckpt"
    save(path, semabench=describe(fingerprint="f+500"))
    check_same_run(path, describe(fingerprint="f+500"))
    with pytest.raises(SemabenchError, match="how they were packed"):
        check_same_run(path, describe(fingerprint="f+8"))
    save(old, semabench=describe(fingerprint="f"))
    check_same_run(old, describe(fingerprint="f+500"))  # which did not say
    with pytest.raises(SemabenchError, match="by their fingerprint"):
        check_same_run(old, describe(fingerprint="g+500"))
