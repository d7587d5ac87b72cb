"""Sweeps through the command line: failures, repetition, local launchers, a search."""

from __future__ import annotations

import sys

import pytest
import torch
from optuna.distributions import FloatDistribution

from helpers.apps import run_here, start
from semabench import app
from semabench import sweep as sweep_room
from semabench.cli import main as semabench
from semabench.sweep import tuning

SWEEP = ("experiment=stress", "recipe.epochs=1", "logger=csv", "data.num_workers=1")


@pytest.fixture(autouse=True)
def _nothing_failed_before(monkeypatch):
    app.failed_jobs.clear()
    yield
    app.failed_jobs.clear()


def sweep(*arguments, cwd, patch):
    patch.setenv("OMP_NUM_THREADS", "1")
    return run_here("train.py", "-m", *SWEEP, *arguments, cwd=cwd, patch=patch)


def finished_runs(root):
    return sorted(path.parent.name for path in root.rglob("finished.json"))


def test_a_failed_job_stops_no_other_and_a_repetition_does_what_is_missing(
    workplace, tmp_path, monkeypatch, capfd
):
    arguments = ("model=timm,sema_nano", "seed=0,1", f"output_root={tmp_path}")
    assert sweep(*arguments, cwd=workplace, patch=monkeypatch) == 1
    told = capfd.readouterr()
    reason = "config key 'model.name' has no value: set model.name=..."
    assert told.err.splitlines()[-4:] == [
        "failed:",
        f"  model=timm seed=0: {reason}",
        f"  model=timm seed=1: {reason}",
        "error: 2 job(s) failed; the same command does what is missing.",
    ]
    names = finished_runs(tmp_path)
    assert len(names) == 2
    (unfinished,) = tmp_path.rglob(f"{names[1]}/finished.json")
    unfinished.unlink()  # as if stopped before its end

    app.failed_jobs.clear()
    arguments = ("model=sema_nano,mila_nano", "seed=1,0", f"output_root={tmp_path}")
    assert sweep(*arguments, cwd=workplace, patch=monkeypatch) == 0
    told = capfd.readouterr()
    assert told.out.count("finished already") == 1
    assert told.out.count("resuming") == 1
    assert told.out.count("training:") == 2
    assert len(finished_runs(tmp_path)) == 4


def test_jobs_in_processes_of_their_own(workplace, tmp_path):
    run = start(
        "train.py",
        *("-m", *SWEEP, "model=sema_nano,timm", f"output_root={tmp_path}"),
        *("hydra/launcher=processes", "hydra.launcher.n_jobs=2"),
        cwd=workplace,
    )
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 1, output
    assert "  model=timm: config key 'model.name' has no value" in output
    assert len(finished_runs(tmp_path)) == 1


def test_joblib_goes_on_after_a_failure(workplace, tmp_path, monkeypatch, capfd):
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    arguments = ("model=timm,sema_nano", f"output_root={tmp_path}", *launcher)
    assert sweep(*arguments, cwd=workplace, patch=monkeypatch) == 1
    assert "  model=timm: config key 'model.name' has no value" in capfd.readouterr().err
    assert len(finished_runs(tmp_path)) == 1


def test_a_search_sees_only_held_out_training_pictures(workplace, tmp_path, monkeypatch, capfd):
    """And repeated, finds its trials."""
    search = ("hydra/sweeper=tune", "hydra.sweeper.n_trials=2", f"output_root={tmp_path}")
    held_out = tmp_path / "held-out"
    source = str(workplace / "data/shapes")
    semabench(["data", "pack", source, str(held_out), "--holdout", "0.2"])
    render = ["data", "render", source, str(held_out), "--resolution", "32", "--crop-pct", "1.0"]
    semabench([*render, "--holdout", "0.2"])
    packed = (f"data.packed={held_out}", "data.holdout=0.2")
    assert sweep(*search, *packed, cwd=workplace, patch=monkeypatch) == 0
    capfd.readouterr()
    best = (tmp_path / "optimization_results.yaml").read_text()
    assert "recipe.lr" in best
    assert "recipe.weight_decay" in best
    names = finished_runs(tmp_path)
    assert len(names) == 2
    for path in tmp_path.rglob("last.ckpt"):
        loader = torch.load(path, weights_only=True)["loops"]["fit_loop"]["state_dict"]
        assert "144" not in str(loader)  # of 144 pictures, 9 · 3 are held out

    (tmp_path / "optimization_results.yaml").unlink()
    assert sweep(*search, *packed, cwd=workplace, patch=monkeypatch) == 0
    assert "training" not in capfd.readouterr().out
    assert (tmp_path / "optimization_results.yaml").read_text() == best
    assert finished_runs(tmp_path) == names


def test_a_poor_trial_ends_early(workplace, tmp_path, monkeypatch, capfd):
    settings = tuning.Settings(2, 1, seed=0, n_startup_trials=1, prune_after=1)
    space = {"recipe.lr": FloatDistribution(1e-3, 1e-2)}
    search = tuning.Search(tmp_path, "s", [f"output_root={tmp_path}"], space, settings)

    def launch(jobs, number):
        if number == 0:
            report = tuning.TrialReport(tmp_path, jobs[0][-1].removeprefix("trial="))
            assert not any(report.ends(99.0, epoch) for epoch in range(2))
            return [99.0]
        words = (*SWEEP, "model=sema_nano", "recipe.epochs=2", *jobs[0])
        assert run_here("train.py", *words, cwd=workplace, patch=monkeypatch) == 0
        return [None]

    search.run(launch)
    assert "ended after epoch 1: below the median of the search" in capfd.readouterr().out
    assert finished_runs(tmp_path) == []
    assert [t.state.name for t in search.study.trials] == ["COMPLETE", "PRUNED"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hydra/sweeper=tune",), "set data.holdout=0.1"),
        (("hydra/sweeper=tune", "data.holdout=1.5"), "data.holdout must be at least"),
        (("data.holdout=0.2",), "was made with holdout none, but data.holdout is 0.2"),
        (("data.holdout=0.2", "evaluate_at=[32]"), "is for choosing, not for reporting"),
        (("hydra/launcher=processes", "hydra.launcher.n_jobs=0"), "must be at least 1"),
        (("hydra/launcher=slrum",), "Did you mean"),
        (("seed=0,1", "hydra/launcher=slurm"), "Slurm takes no jobs here"),
        (("seed=0,1", "recipe.mesa_start=0.5"), "recipe.mesa_start has no effect without MESA"),
    ],
)
def test_wrong_arguments_are_told(workplace, tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.setenv("PATH", "/nonexistent")
    code = sweep(*arguments, f"output_root={tmp_path}", cwd=workplace, patch=monkeypatch)
    assert code in (1, 2)
    assert message in capfd.readouterr().err
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.parametrize(
    "argument", ["hydra/launcher=slurm", "hydra.launcher.n_jobs=2", "hydra/sweeper=tune"]
)
def test_what_only_a_sweep_looks_at_asks_for_a_sweep(tmp_path, monkeypatch, capfd, argument):
    words = ("experiment=stress", *(["hydra/launcher=processes"] * ("n_jobs" in argument)))
    assert run_here("train.py", *words, argument, cwd=tmp_path, patch=monkeypatch) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "has no effect on a single job: add -m" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "argument"),
    [
        ("submitit", "hydra/launcher=slurm"),
        ("optuna", "hydra/sweeper=tune"),
    ],
)
def test_a_missing_plugin_is_told(workplace, tmp_path, monkeypatch, capfd, missing, argument):
    for plugin in ("slurm", "tuning"):
        monkeypatch.delitem(sys.modules, f"semabench.sweep.{plugin}", raising=False)
        monkeypatch.delattr(sweep_room, plugin, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    code = sweep(argument, f"output_root={tmp_path}", cwd=workplace, patch=monkeypatch)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(errors) == 1
    assert "pip install 'semabench[sweep]'" in errors[0]
