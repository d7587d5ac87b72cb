"""Growing pictures, batches in parts, fine-tuning from a run: through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
import torch

from helpers.apps import REPOSITORY, environment, run_here
from semabench.cli import main as semabench
from semabench.results.store import read_rows
from semabench.training.checkpoint import read_checkpoint
from semabench.training.module import Classifier

GROWING = (
    "experiment=stress",
    "data.resolution=48",
    "recipe.epochs=3",
    "recipe.resolution_schedule=[[0,32],[1,40],[2,48]]",
    "trainer.accumulate=2",
    "trainer.log_every_n_steps=4",
    "evaluate_at=[48]",
    "logger=csv",
)


@pytest.fixture
def sizes(monkeypatch) -> list[tuple[int, tuple[int, ...]]]:
    """Step and shape of every batch that is trained on."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    step = Classifier.training_step

    def training_step(self, batch, batch_idx):
        seen.append((self.global_step, tuple(batch[0].shape)))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    return seen


def test_batches_of_mixed_sizes_are_told_in_the_rows(workplace, tmp_path, monkeypatch, sizes):
    words = ("recipe.mixed_resolutions=[32,40,48]", "recipe.resolution_schedule=null")
    arguments = (*GROWING, *words, "recipe.epochs=1", f"output_root={tmp_path}", "name=mixed")
    assert run_here("train.py", *arguments, cwd=workplace, patch=monkeypatch) == 0
    assert {shape[-1] for _, shape in sizes} == {32, 40, 48}
    (row,) = read_rows(tmp_path / "stress" / "mixed" / "results.jsonl")
    assert (row.train_resolution, row.train_resolutions) == (48, (32, 40, 48))
    assert row.trained_at == "32, 40, 48 px"


def test_pictures_grow_and_a_stop_in_mid_epoch_changes_nothing(
    workplace, tmp_path, monkeypatch, sizes
):
    def run(name: str) -> int:
        arguments = (*GROWING, f"output_root={tmp_path}", f"name={name}")
        return run_here("train.py", *arguments, cwd=workplace, patch=monkeypatch)

    assert run("alone") == 0
    undisturbed = list(sizes)
    expected = [
        (step, (16, 3, side, side)) for step, side in enumerate([32] * 9 + [40] * 9 + [48] * 9)
    ]
    assert undisturbed == expected
    (row,) = read_rows(tmp_path / "stress" / "alone" / "results.jsonl")
    assert (row.train_resolution, row.epochs) == (48, 3)

    start_batch = Classifier.on_train_batch_start

    def stop(self, *rest):
        if self.global_step == 12:  # stored after it, at 13, in the second epoch
            os.kill(os.getpid(), signal.SIGUSR1)
        start_batch(self, *rest)

    sizes.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_batch_start", stop)
        assert run("stopped") == 138
    assert run("stopped") == 0
    assert sizes == undisturbed
    found, wanted = (
        read_checkpoint(tmp_path / "stress" / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("stopped", "alone")
    )
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    metrics = "".join(p.read_text() for p in (tmp_path / "stress" / "alone").rglob("metrics.csv"))
    for name in ("images_per_second", "data_wait_percent", "hours_left"):
        assert f"train/{name}" in metrics


def test_a_trained_run_is_fine_tuned_at_a_higher_resolution(trained, tmp_path, monkeypatch, capfd):
    arguments = ("experiment=finetune", "model=sema_nano", "data=shapes", "data.resolution=48")
    arguments += (f"model.checkpoint={trained.run_dir}", "recipe.batch_size=16", "recipe.epochs=1")
    arguments += ("recipe.lr_batch_size=null", "trainer.profile_steps=2", "logger=csv")
    arguments += (f"output_root={tmp_path}", "evaluate_at=[48]")
    first: list[dict[str, torch.Tensor]] = []
    start = Classifier.on_train_batch_start

    def start_batch(self, *rest):
        if self.global_step == 0:
            first.append({key: value.clone() for key, value in self.model.state_dict().items()})
        start(self, *rest)

    monkeypatch.setattr(Classifier, "on_train_batch_start", start_batch)
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 0
    assert "traced: " in capfd.readouterr().out
    state = read_checkpoint(trained.run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    averaged = {
        key.removeprefix("ema.module."): value for key, value in state.items() if "ema." in key
    }
    assert all(torch.equal(first[0][key], averaged[key]) for key in averaged)
    (run_dir,) = (tmp_path / "finetune").iterdir()
    (row,) = read_rows(run_dir / "results.jsonl")
    assert (row.recipe, row.train_resolution) == ("finetune30", 48)
    assert json.loads((run_dir / "finished.json").read_text())["compiled"] is False
    assert list((run_dir / "profile").glob("steps-7-8.json"))


def test_recomputed_activations_change_nothing(workplace, tmp_path, monkeypatch, capfd):
    arguments = ["experiment=stress", "recipe.epochs=1", "evaluate_at=[]", "logger=csv"]
    arguments += ["model.drop_path_rate=0.3", f"output_root={tmp_path}"]

    def run(*more: str) -> int:
        return run_here("train.py", *arguments, *more, cwd=workplace, patch=monkeypatch)

    assert run("name=kept") == run("name=made_anew", "trainer.grad_checkpointing=true") == 0
    kept, made_anew = (
        read_checkpoint(tmp_path / "stress" / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("kept", "made_anew")
    )
    assert all(torch.equal(made_anew[name], value) for name, value in kept.items())
    capfd.readouterr()
    arguments[-2] = "model.drop_path_rate=null"
    assert run("model=timm", "model.name=dla34", "trainer.grad_checkpointing=true") == 2
    assert "dla34 knows no gradient checkpointing" in capfd.readouterr().err


def test_what_a_model_leaves_out_of_images_is_said_and_recorded(
    workplace, tmp_path, monkeypatch, capfd
):
    shapes = str(workplace / "data/shapes")
    semabench(["data", "render", shapes, shapes, "--resolution", "40", "--crop-pct", "1.0"])
    arguments = ["experiment=stress", "recipe.epochs=1", "evaluate_at=[32,40]", "logger=csv"]
    arguments += ["model=timm", "model.name=vit_tiny_patch16_224", "model.drop_path_rate=null"]
    arguments += ["data.resolution=32", f"output_root={tmp_path}", "name=run"]
    assert run_here("train.py", *arguments, cwd=workplace, patch=monkeypatch) == 0
    assert "vit_tiny_patch16_224 sees 32 of 40 px in height and width" in capfd.readouterr().err
    rows = read_rows(tmp_path / "stress" / "run" / "results.jsonl")
    assert [(row.resolution, row.seen_resolution) for row in rows] == [(32, None), (40, 32)]


def test_two_processes_in_parts_train_as_one_process_does(workplace, tmp_path, monkeypatch):
    """A model without batch statistics and without draws of its own; mixing is each device's."""
    arguments = ["experiment=stress", "model=timm", "model.name=test_vit"]
    arguments += ["model.drop_path_rate=null", "recipe.epochs=2", "logger=csv"]
    arguments += ["recipe.mixup=0", "recipe.cutmix=0", "evaluate_at=[]", f"output_root={tmp_path}"]
    assert run_here("train.py", *arguments, "name=one", cwd=workplace, patch=monkeypatch) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(REPOSITORY / "train.py"), *arguments, "name=two", "trainer.devices=2"]
    done = subprocess.run(
        [*command, "trainer.accumulate=2", "trainer.profile_steps=2"],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (
        read_checkpoint(tmp_path / "stress" / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("one", "two")
    )
    for name, expected in one.items():
        # A step is up to 4e-3 a weight: a gradient that got lost would show at once.
        assert float((two[name] - expected).norm()) < 0.01 * float(expected.norm()) + 1e-4, name
    (trace,) = (tmp_path / "stress" / "two" / "profile").iterdir()
    calls = Counter(event.get("name") for event in json.loads(trace.read_text())["traceEvents"])
    # In two steps: two buckets of gradients, once for both micro-batches; no buffers to share.
    assert (calls["c10d::allreduce_"], calls["c10d::broadcast_"]) == (4, 0)
