"""`eval.py measure=probe` through the command line, on a trained run."""

from __future__ import annotations

import csv

import pytest
import timm
import torch
from torch.nn import functional as F

from helpers.apps import run_here
from semabench import load
from semabench.cli import main as semabench
from semabench.config.schema import DataConfig
from semabench.data.augment.batch import Normalize
from semabench.data.loader import create_eval_loader
from semabench.results.store import read_rows

PROBE = ("measure=probe", "resolutions=[32]", "neighbors=[1,20]", "accelerator=cpu")


def nearest_neighbours_right(run) -> int:
    """Count the images to test on whose nearest training image has their label."""
    model = load(run.run_dir)
    normalize = Normalize(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    data = DataConfig("shapes", str(run.cwd / "data/shapes"), crop_pct=1.0)
    split = {}
    for name in ("train", "val"):
        loader = create_eval_loader(data, 32, split=name, batch_size=9)
        batches = [(images, labels) for images, labels in loader]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        with torch.no_grad():
            features = model.forward_head(
                model.forward_features(normalize(images)), pre_logits=True
            )
        split[name] = F.normalize(features.flatten(1), dim=1), labels
    (known, theirs), (asked, labels) = split["train"], split["val"]
    return int((theirs[(asked @ known.T).argmax(dim=1)] == labels).sum())


def test_frozen_features_are_probed_once(copied, monkeypatch, capfd):
    words = (*PROBE, f"checkpoint={copied.run_dir}")
    assert run_here("eval.py", *words, cwd=copied.cwd, patch=monkeypatch) == 2
    told = capfd.readouterr().err.splitlines()[-1]
    command = "semabench data render SRC data/shapes --split train --resolution 32 --crop-pct 1.0"
    assert f"shapes, train, is not rendered at 32 px: `{command}`." in told

    shapes = str(copied.cwd / "data/shapes")
    semabench([shapes if w in ("SRC", "data/shapes") else w for w in command.split()[1:]])
    before = (copied.run_dir / "results.jsonl").read_bytes()
    assert run_here("eval.py", *words, cwd=copied.cwd, patch=monkeypatch) == 0
    assert "Top-1 of frozen features (%)" in capfd.readouterr().out
    assert (copied.run_dir / "results.jsonl").read_bytes() == before  # accuracy's own
    path = copied.run_dir / "probe/results.jsonl"
    rows = read_rows(path)
    kinds = [(row.classifier, row.neighbors) for row in rows]
    assert kinds == [("knn", 1), ("knn", 20), ("linear", None)]
    assert {(row.measure, row.n, row.train_n, row.weights) for row in rows} == {
        ("probe", 45, 144, "ema")
    }
    assert rows[-1].penalty is not None
    assert rows[0].top1 == pytest.approx(100 * nearest_neighbours_right(copied) / 45)
    with (path.parent / "report/probe.csv").open() as file:
        assert [row["classifier"] for row in csv.DictReader(file)] == ["knn", "knn", "linear"]

    assert run_here("eval.py", *words, cwd=copied.cwd, patch=monkeypatch) == 0
    assert capfd.readouterr().out.count("measured before") == 3
    assert len(read_rows(path)) == 3
    # Other votes, other penalties: other measurements.
    words = (*words, "temperature=0.5", "penalties=[0.1]")
    assert run_here("eval.py", *words, cwd=copied.cwd, patch=monkeypatch) == 0
    assert "measured before" not in capfd.readouterr().out
    assert len({row.key for row in read_rows(path)}) == 6
    assert run_here("eval.py", *words, "neighbors=[145]", cwd=copied.cwd, patch=monkeypatch) == 2
    assert "neighbors=145 are more than the 144 images" in capfd.readouterr().err


def test_weights_without_a_head_can_be_probed(copied, tmp_path, monkeypatch):
    shapes = str(copied.cwd / "data/shapes")
    command = ["data", "render", shapes, shapes, "--split", "train", "--resolution", "32"]
    semabench([*command, "--crop-pct", "1.0"])
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "bare.pth")
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: create(*a, **(k | {"num_classes": 0}))
    )
    words = ("model=timm", "model.name=resnet10t", f"model.checkpoint={tmp_path / 'bare.pth'}")
    words = (*words, "data=shapes", "classifiers=[knn]")
    assert run_here("eval.py", *PROBE[:2], *words, cwd=copied.cwd, patch=monkeypatch) == 0
    (row,) = read_rows(copied.cwd / "outputs/probe/resnet10t/results.jsonl")
    assert (row.top5, row.neighbors) == (None, 20)


def test_more_neighbours_than_training_images_and_keys_without_effect_are_told(
    copied, monkeypatch, capfd
):
    words = (*PROBE, f"checkpoint={copied.run_dir}", "classifiers=[linear]")
    assert run_here("eval.py", *words, cwd=copied.cwd, patch=monkeypatch) == 2
    assert "neighbors has no effect without nearest neighbours" in capfd.readouterr().err
