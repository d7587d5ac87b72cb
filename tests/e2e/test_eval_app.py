"""Evaluation through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.apps import run_here
from semabench.errors import SemabenchError
from semabench.results.store import read_rows

QUICK = ("logger=csv",)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(copied, monkeypatch, capfd):
    path = copied.run_dir / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:40])  # killed while writing the second row
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[32,48]", *QUICK)
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert output.count("measured before") == 1
    rows = read_rows(path)
    assert [row.resolution for row in rows] == [32, 48]
    assert rows[0].to_dict() == read_rows(path)[0].to_dict()


def test_averaged_and_plain_weights_are_different_measurements(copied, monkeypatch):
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[32]", "weights=model", *QUICK)
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 0
    rows = read_rows(copied.run_dir / "results.jsonl")
    assert [row.weights for row in rows] == ["ema", "ema", "model"]


def test_the_window_can_be_changed_at_evaluation_time(copied, monkeypatch):
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[48]", "window_size=2", *QUICK)
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 0
    rows = read_rows(copied.run_dir / "results.jsonl")
    assert rows[-1].options == "window_size=2"
    assert rows[-1].gmacs is not None
    assert rows[1].gmacs is not None
    assert rows[-1].gmacs < rows[1].gmacs


def test_a_size_that_the_model_cannot_take_ends_no_list(copied, monkeypatch, capfd):
    from semabench.evaluation import target

    def fails(model, resolution, *_, **__):
        if resolution == 32:
            raise SemabenchError("it cannot be run at 32 px.")

    monkeypatch.setattr(target, "try_size", fails)
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[32,48]", "redo=true", *QUICK)
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 2
    told = capfd.readouterr()
    assert "32 px  NOT MEASURED: it cannot be run at 32 px." in told.out
    assert "48 px  top-1" in told.out
    assert told.err.splitlines()[-1].startswith("error: not measured: 32 px")
    assert [row.resolution for row in read_rows(copied.run_dir / "results.jsonl")][-1] == 48


def test_the_folder_loader_measures_the_same(copied, monkeypatch):
    """Rendered files hold the pixels of timm's transform, so the accuracy is the same."""
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[48]", "redo=true", *QUICK)
    folder = ("data=shapes", "data.loader=folder", "data.source=data/shapes")
    assert run_here("eval.py", *arguments, *folder, cwd=copied.cwd, patch=monkeypatch) == 0
    rows = read_rows(copied.run_dir / "results.jsonl")
    assert len(rows) == 3
    assert (rows[1].top1, rows[1].top5) == (rows[2].top1, rows[2].top5)
    assert rows[1].fingerprint == rows[2].fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no resolutions"),
        (("resolutions=[32]",), "give checkpoint=RUN or model=NAME"),
        (("checkpoint=nowhere", "resolutions=[32]"), "no checkpoint nowhere"),
        (("checkpoint=RUN", "resolutions=[24]"), "must be at least 32 pixels"),
        (("checkpoint=RUN", "resolutions=[64]"), "semabench data render"),
        (("checkpoint=RUN", "resolutions=[32]", "accelerator=gpu"), "a GPU is asked for"),
        (("checkpoint=RUN", "resolutions=[32]", "model=sema_nano"), "brings its own model"),
        (("checkpoint=RUN", "resolution=[32]"), "Did you mean 'resolutions'"),
        (("checkpoint=RUN", "data.source=x"), "data.source needs data=NAME"),
        (("checkpoint=RUN", "data=shapes", "data.resolution=32"), "give resolutions=[...]"),
        (("model=timm", "model.name=x", "model.pretrained=true", "model.checkpoint=x",
          "data=shapes"), "give one of them"),
        (("model=sema_nano", "data=shapes", "resolutions=[32]"), "has no weights"),
        (("model=sema_nano", "data=shapes", "resolutions=[32]", "model.checkpoint=RUN"),
         "evaluated with checkpoint=RUN"),
        (("model=timm", "model.name=resnet19", "model.pretrained=true", "data=shapes",
          "resolutions=[32]"), "resnet1"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(trained, monkeypatch, capfd, arguments, message):
    filled = [a.replace("RUN", str(trained.run_dir)) for a in arguments]
    code = run_here("eval.py", *filled, cwd=trained.cwd, patch=monkeypatch)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]


def rendered(folder: Path, classes: list[str], source: Path) -> str:
    """Render a dataset of these classes, images taken from ``source`` as far as it has them."""
    from semabench.cli import main as semabench

    for name in classes:
        images = sorted((source / name).glob("*.jpg")) or sorted(source.glob("*/*.jpg"))[:1]
        for split in ("train", "val"):
            (folder / "in" / split / name).mkdir(parents=True)
            for image in images:
                (folder / "in" / split / name / image.name).write_bytes(image.read_bytes())
    told = ["--resolution", "32", "--crop-pct", "1.0"]
    semabench(["data", "render", str(folder / "in"), str(folder), *told])
    return str(folder)


def test_classes_are_matched_by_their_names(copied, tmp_path, monkeypatch, capfd):
    source = copied.cwd / "data/shapes/val"
    known = sorted(path.name for path in source.iterdir())
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[32]", "data=shapes")

    def run(data: str, *more: str) -> int:
        return run_here(
            "eval.py", *arguments, f"data.packed={data}", *more, cwd=copied.cwd, patch=monkeypatch
        )

    other = rendered(tmp_path / "other", [*known, "row-of-nothing"], source)
    capfd.readouterr()
    assert run(other) == 2
    assert "does not know 1 of the dataset's 10 classes: row-of-nothing" in capfd.readouterr().err
    some = rendered(tmp_path / "some", known[1::4], source)
    assert run(some) == run(some, "logits=all") == 0
    told = "2 of the 9 classes of sema_nano: the other logits are left out"
    assert told in capfd.readouterr().err
    rows = [row for row in read_rows(copied.run_dir / "results.jsonl") if row.logits]
    assert [(row.logits, row.classes, row.n) for row in rows] == [("own", 2, 10), ("all", 2, 10)]
    assert rows[0].top1 >= rows[1].top1
    assert rows[0].top5 == 100


def test_a_checkpoint_of_another_model_is_refused(copied, monkeypatch, capfd):
    import torch

    path = copied.run_dir / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["semabench"]["config"]["model"]["name"] = "mila_nano"
    torch.save(checkpoint, path)
    arguments = (f"checkpoint={copied.run_dir}", "resolutions=[32]")
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 2
    assert "does not fit mila_nano" in capfd.readouterr().err
