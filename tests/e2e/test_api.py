"""The commands from Python: typed configs in, run directories, rows and models out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import semabench
from helpers.apps import TINY, environment
from semabench.config.schema import TrainConfig
from semabench.errors import SemabenchError
from semabench.results.store import read_rows


def test_a_tour(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    words = (*TINY, "recipe.epochs=1", "logger=csv", "model=sema_nano")
    words += ("data.loader=folder", "data.source=data/shapes", "data.num_workers=1")
    config = semabench.train_config(*words)
    assert isinstance(config, TrainConfig)
    config.evaluate_at, config.output_root = [], str(tmp_path)
    run = semabench.train(config)
    assert (run / "finished.json").exists()
    assert semabench.train(config) == run  # finished already
    rows = semabench.evaluate(f"checkpoint={run}", "resolutions=[32,48]", "logger=csv")
    assert [row.resolution for row in rows] == [32, 48]
    assert rows == read_rows(run / "results.jsonl")
    made = semabench.report(run, out=tmp_path / "report")
    assert (made / "accuracy.png").exists()
    with pytest.raises(SemabenchError, match="no runs to report"):
        semabench.report()
    model = semabench.load(run)
    assert not model.training
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 48, 48)).shape == (1, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: semabench.train("modle=sema_nano"), "model"),
        (lambda: semabench.train_config("experiment=demo", "recipe.lr=-1"), r"recipe\.lr must be"),
        (lambda: semabench.evaluate("checkpoint=nowhere", "resolutions=[32]"), "nowhere"),
        (lambda: semabench.load("nowhere"), "nowhere"),
        (lambda: semabench.train(TrainConfig(), "seed=3"), "seed=3 has no effect beside a config"),
    ],
)
def test_mistakes_are_one_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SemabenchError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_importing_the_package_does_not_import_the_commands():
    told = "import sys, semabench; print('hydra' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", told], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = semabench.trian
