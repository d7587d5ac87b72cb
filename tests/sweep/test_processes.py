"""Jobs in processes of their own: results in order, failures told, signals handed on."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from semabench import app
from semabench.app import RESULT_FILE, JobFailed
from semabench.errors import SemabenchError
from semabench.sweep.processes import KeepGoing, ProcessPool, Slot, failure, job_texts, slots

CORES = frozenset(os.sched_getaffinity(0))

# What a job does: `ok`, `bad`, `dead`; `wait` ends when it is told to.
JOB = f"""
import os, signal, sys, time
what = sys.argv[1].split("=")[1]
if what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    open(sys.argv[2].split("=")[1], "w").close()
    time.sleep(60)
if what == "bad":
    sys.exit(print("error: so it is.") or 2)
if what == "dead":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.3)
cores = sorted(os.sched_getaffinity(0))
open(os.environ["{RESULT_FILE}"], "w").write(str(cores[0] + 0.5))
print("GPU", os.environ.get("CUDA_VISIBLE_DEVICES"), time.time())
"""


def pool(log_dir, *places):
    return ProcessPool([sys.executable, "-c", JOB], log_dir, places)


def test_a_dead_job_takes_no_other_along(tmp_path, capfd):
    slot = Slot(None, frozenset([min(CORES)]))
    jobs = [["do=ok"], ["do=bad"], ["do=dead"], ["do=ok", "seed=1"]]
    results = pool(tmp_path, slot, slot).run(jobs, first=4)
    good = [result.status == JobStatus.COMPLETED for result in results]
    assert good == [True, False, False, True]
    assert results[0].return_value == results[3].return_value == min(CORES) + 0.5
    assert str(results[1]._return_value) == "so it is."
    assert str(results[2]._return_value) == f"killed by SIGKILL; see {tmp_path / '6.log'}"
    told = capfd.readouterr().out
    assert "4 job(s), 2 at a time" in told
    assert re.search(r"^#5 do=bad: failed \(so it is\.\) after 0:0\d$", told, flags=re.MULTILINE)


def test_jobs_at_the_same_time_have_gpus_of_their_own(tmp_path):
    places = [Slot("3", CORES), Slot("MIG-1", CORES)]
    pool(tmp_path, *places).run([["do=ok"]] * 4, first=0)
    ends: dict[str, list[float]] = {}
    for log in tmp_path.iterdir():
        _, gpu, end = log.read_text().split()
        ends.setdefault(gpu, []).append(float(end))
    assert sorted(ends) == ["3", "MIG-1"]
    for times in ends.values():  # one after the other
        assert len(times) == 2
        assert abs(times[0] - times[1]) >= 0.3


def test_a_signal_reaches_the_jobs_and_ends_the_sweep(tmp_path):
    started = tmp_path / "started"
    running = pool(tmp_path / "logs", Slot(None, CORES))

    def when_started():
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_started, daemon=True).start()
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        running.run([["do=wait", f"mark={started}"], ["do=ok"]], first=0)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["0.log"]


def test_slots_share_gpus_and_cores(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 8})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [slot.gpu for slot in slots(None)] == ["5", "7"]
    assert [slot.gpu for slot in slots(3)] == ["5", "7", "5"]
    assert [sorted(slot.cores) for slot in slots(2)] == [[0, 2, 8], [1, 3]]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert [slot.gpu for slot in slots(None)] == [None]


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
    monkeypatch.setattr("semabench.sweep.processes.failed_jobs", noted := [])
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
    monkeypatch.setattr(app, "failed_jobs", ["seed=1: no memory"])
    monkeypatch.setattr("sys.argv", ["train.py"])
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
    told = app.hydra_message(Exception(text), [])
    assert (
        told == "hydra/launcher/joblib needs a plugin of Hydra's: pip install 'semabench[sweep]'."
    )
