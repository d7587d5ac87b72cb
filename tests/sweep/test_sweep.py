"""A failed job is noted and has no result; a failed launcher is told in one line."""

from __future__ import annotations

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from semabench import app
from semabench.app import JobFailed
from semabench.errors import SemabenchError
from semabench.sweep import KeepGoing, failure, job_texts


class Given(Launcher):
    """Launches nothing; the results are given."""

    def __init__(self, *returns):
        self.returns = returns

    def setup(self, **context):
        pass

    def launch(self, job_overrides, initial_job_idx):
        if isinstance(self.returns[0], Exception):
            raise self.returns[0]
        return self.returns


@pytest.fixture
def failed(monkeypatch):
    monkeypatch.setattr("semabench.sweep.failed_jobs", noted := [])
    return noted


def test_failures_are_noted_with_what_sets_the_job_apart(failed):
    good = JobReturn(status=JobStatus.COMPLETED)
    good.return_value = 71.5
    given = Given(good, failure(JobFailed("no memory")), failure(ValueError("odd")))
    jobs = [["a=1", "seed=0"], ["a=1", "seed=1"], ["a=1", "seed=2"]]
    results = KeepGoing(given).launch(jobs, 0)
    assert [result.return_value for result in results] == [71.5, None, None]
    assert failed == ["seed=1: no memory", "seed=2: ValueError: odd"]


def test_a_launcher_that_fails_is_told(failed):
    with pytest.raises(SemabenchError, match=r"Given failed \(OSError: gone\)"):
        KeepGoing(Given(OSError("gone\nfor good"))).launch([["a=1"]], 0)
    with pytest.raises(SemabenchError, match="as it is"):
        KeepGoing(Given(SemabenchError("as it is"))).launch([["a=1"]], 0)


def test_a_job_alone_is_called_by_all_its_overrides():
    assert job_texts([["a=1", "hydra.verbose=true"]]) == ["a=1"]
    assert job_texts([[]]) == ["the job"]


def test_the_app_lists_what_failed_and_does_not_end_well(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr(app, "failed_jobs", ["seed=1: no memory"])
    with pytest.raises(SystemExit) as ended:
        app.run_app(lambda: None, list)
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "failed:",
        "  seed=1: no memory",
        "error: 1 job(s) failed; the same command does what is missing.",
    ]


def test_a_launcher_that_is_not_installed_is_told():
    text = "Could not find 'hydra/launcher/joblib'\n\nAvailable options:\n\tbasic\n\tprocesses\n"
    told = app._hydra_message(Exception(text), [])
    assert (
        told == "hydra/launcher/joblib needs a plugin of Hydra's: pip install 'semabench[sweep]'."
    )
