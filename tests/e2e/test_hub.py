"""A trained run in the Hub's layout, and what loads it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import semabench
from helpers.apps import REPOSITORY, environment, run_here
from semabench import cli
from semabench.errors import SemabenchError
from semabench.hub import push
from semabench.results.store import read_rows

EVALUATE = ("resolutions=[32]", "logger=csv", "batch_size=16", "accelerator=cpu")


def test_a_run_is_written_and_loaded_as_it_was(copied, tmp_path, capsys, monkeypatch):
    run = copied.run_dir
    assert (
        run_here("eval.py", f"checkpoint={run}", *EVALUATE, cwd=copied.cwd, patch=monkeypatch) == 0
    )
    row = next(row for row in read_rows(run / "results.jsonl") if row.resolution == 32)
    folder = tmp_path / "pushed"
    capsys.readouterr()
    cli.main(["push", str(run), "somebody/sema", "--to", str(folder)])
    assert f'timm.create_model("local-dir:{folder}", pretrained=True)' in capsys.readouterr().out

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(images), semabench.load(run)(images))
    told = json.loads((folder / "config.json").read_text())
    assert len(told["label_names"]) == model.num_classes == 9
    for file in folder.rglob("*"):  # whose user and machine are nobody's business
        assert str(copied.cwd).encode() not in file.read_bytes()
        assert b"data/shapes" not in file.read_bytes()
    card = (folder / "README.md").read_text()
    assert "library_name: timm" in card
    assert f"{row.top1:.1f}" in card
    assert list(folder.glob("*.png"))

    # eval.py takes it by its name, and matches its classes by theirs.
    words = ["model=timm", f"model.name=local-dir:{folder}", "model.pretrained=true", "data=shapes"]
    words += ["data.resolution=32", f"output_dir={tmp_path / 'eval'}"]
    assert run_here("eval.py", *words, *EVALUATE, cwd=copied.cwd, patch=monkeypatch) == 0
    (again,) = read_rows(tmp_path / "eval" / "results.jsonl")
    assert (again.top1, again.n, again.model) == (row.top1, row.n, f"local-dir:{folder}")


def test_what_cannot_be_pushed(copied, tmp_path, monkeypatch):
    with pytest.raises(SemabenchError, match="'sema' is not OWNER/NAME"):
        push(copied.run_dir, "sema")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(SemabenchError, match="full is not empty"):
        push(copied.run_dir, "somebody/sema", to=tmp_path / "full")
    with monkeypatch.context() as patch:
        patch.setattr("semabench.hub.save_for_hf", full_disk)
        with pytest.raises(SemabenchError, match=r"cannot write .*No space left"):
            push(copied.run_dir, "somebody/sema", to=tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "full"]
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SemabenchError, match=r"cannot upload to somebody/sema .*--to FOLDER"):
        push(copied.run_dir, "somebody/sema")


def full_disk(model: object, folder: str, **rest: object) -> None:
    """Write half, and no more."""
    Path(folder, "model.safetensors").write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


def test_torch_hub_builds_our_models():
    told = (
        f"import torch; model = torch.hub.load({str(REPOSITORY)!r}, 'sema_nano', source='local', "
        "num_classes=3); print(model.num_classes)"
    )
    command = [sys.executable, "-I", "-c", told]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
