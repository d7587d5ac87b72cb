"""Jobs on a real Slurm: whatever befalls them, their runs end as if undisturbed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from helpers.apps import REPOSITORY
from helpers.cluster import Cluster

pytestmark = pytest.mark.timeout(900)  # twenty starts of train.py; on a busy machine, minutes
HELPERS = Path(__file__).resolve().parents[1] / "helpers"
STEPS = 27  # three epochs of nine


@dataclass(frozen=True)
class Trains:
    """Processes that train one run below ``root``, and may wait at given steps."""

    cluster: Cluster
    root: Path

    def held_at(self, step: int, ranks: int = 1) -> None:
        """Wait until all processes stand at this step."""
        markers = [self.root / f"{step}.{rank}" for rank in range(ranks)]
        self.cluster.until(lambda: all(m.exists() for m in markers), f"step {step}: {self.root}")

    def run_dir(self) -> Path:
        """Return the one run directory there is."""
        (run_dir,) = (self.root / "outputs" / "stress").iterdir()
        return run_dir

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights at the end of the run."""
        path = self.run_dir() / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["global_step"] == STEPS
        return checkpoint["state_dict"]


@dataclass(frozen=True)
class Submitted(Trains):
    """A job of train.sbatch."""

    job: str

    def log(self) -> str:
        return (self.root / "log").read_text()


@dataclass(frozen=True)
class Sweep(Trains):
    """`train.py -m`, which waits for its jobs."""

    process: subprocess.Popen[str]


def training(pictures: Path, root: Path) -> tuple[str, ...]:
    return (
        *("experiment=stress", "recipe.epochs=3", f"output_root={root}/outputs"),
        *(f"data.source={pictures}", "data.num_workers=1"),
        *("trainer.log_every_n_steps=3", "trainer.save_every_n_steps=2"),
    )


def variables(root: Path, hold: str) -> dict[str, str]:
    return {
        "SEMABENCH_HOLD": str(root),
        "HOLD_AT": hold,
        "MASTER_ADDR": "127.0.0.1",  # the virtual nodes have no addresses of their own
        "OMP_NUM_THREADS": "1",
        "NETRC": "/nonexistent",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]),
    }


# train.py, but each job's process, which knows this function by its text, installs `holding` first.
HELD = """
import hydra
from semabench import commands
from semabench.app import run_app, run_job


def held(composed):
    import holding

    holding.install()
    return commands.train_job(composed)


@hydra.main(version_base="1.3", config_path=commands.CONF, config_name="train")
def main(composed):
    return run_job(held, composed)


if __name__ == "__main__":
    run_app(main, lambda: [])
"""


def start_sweep(cluster: Cluster, pictures: Path, root: Path) -> Sweep:
    """Start a sweep of two jobs; their processes wait at steps 12 and 22 of their training."""
    root.mkdir()
    app = root / "train.py"
    app.write_text(HELD)
    process = subprocess.Popen(
        [
            *(sys.executable, str(app), "-m", *training(pictures, root), "model=sema_nano,timm"),
            f"data.packed={pictures}",
            *("trainer.devices=2", "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null"),
            *("hydra.launcher.partition=low", "hydra.launcher.timeout_min=30"),
            *("hydra.launcher.poll_seconds=1", "+hydra.launcher.additional_parameters.nodelist=n4"),
        ],
        cwd=root,
        env={**cluster.environment, **variables(root, "12,22")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Sweep(cluster, root, process)


def submit(
    cluster: Cluster, pictures: Path, root: Path, options: str, *arguments: str, hold: str = ""
) -> Submitted:
    """Submit as a user does, from the repository; the processes wait at the steps in ``hold``."""
    root.mkdir()
    holding = root / "holding"
    script = (HELPERS / "holding.py").read_text().splitlines()
    holding.write_text("\n".join([f"#!{sys.executable}", *script[1:]]))
    holding.chmod(0o755)
    job = cluster.call(
        *("sbatch", "--parsable", f"--output={root}/log", *options.split()),
        *("slurm/train.sbatch", *training(pictures, root), *arguments),
        cwd=REPOSITORY,
        SEMABENCH_PYTHON=str(holding),
        **variables(root, hold),
    )
    return Submitted(cluster, root, job.strip())


@dataclass(frozen=True)
class Jobs:
    """All jobs of this file: they run at the same time, on nodes of their own."""

    undisturbed: Submitted
    disturbed: Submitted
    undisturbed_pair: Submitted
    disturbed_pair: Submitted
    cancelled: Submitted
    sweep: Sweep


@pytest.fixture(scope="module")
def jobs(cluster, pictures, tmp_path_factory) -> Iterator[Jobs]:
    root = tmp_path_factory.mktemp("jobs")

    def job(name: str, options: str, *arguments: str, hold: str = "") -> Submitted:
        options = f"--time=30 {options}"
        return submit(cluster, pictures, root / name, options, *arguments, hold=hold)

    packed = f"data.packed={pictures}"
    # The workers of this loader are processes, which get the job's signals, too.
    folder = "data.loader=folder"
    two = "--nodes=2 --ntasks-per-node=1"
    sweep = start_sweep(cluster, pictures, root / "sweep")
    yield Jobs(
        disturbed=job("one", "--nodelist=n3", folder, hold="12,22"),
        disturbed_pair=job("two", f"{two} --nodelist=n1,n2 --signal=USR1@90", packed, hold="12,22"),
        undisturbed=job("one-calm", "--nodelist=n5", folder),
        undisturbed_pair=job("two-calm", f"{two} --nodelist=n5,n6", packed),
        cancelled=job("cancelled", "--nodelist=n6", packed, "logger=csv", hold="3"),
        sweep=sweep,
    )
    sweep.process.kill()


def assert_as_if_undisturbed(disturbed: Submitted, calm: Submitted, restarts: int) -> None:
    for job, count in ((disturbed, restarts), (calm, 0)):
        end = job.cluster.finished(job.job)
        assert (end["JobState"], end["ExitCode"]) == ("COMPLETED", "0:0"), job.log()
        assert int(end["Restarts"]) == count
        assert job.log().count("resuming") == count
    assert_same_run(disturbed, calm, restarts)


def assert_same_run(disturbed: Submitted | Sweep, calm: Submitted, restarts: int) -> None:
    """One run directory, one W&B run that was joined at each start, and the same bits."""
    expected, found = calm.weights(), disturbed.weights()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    wandb_id = (disturbed.run_dir() / "wandb_id").read_text().strip()
    logged = list((disturbed.run_dir() / "wandb").glob("offline-run-*"))
    assert len(logged) == restarts + 1
    assert all(path.name.endswith(f"-{wandb_id}") for path in logged)
    for path in logged:  # W&B's process, which every start but the last lost, had written its rows
        assert next(path.glob("*.wandb")).stat().st_size > 1000


def preempt(cluster: Cluster, node: str) -> None:
    """Let a job of the higher partition have the whole node."""
    urgent = cluster.call(
        *("sbatch", "--parsable", "--partition=high", f"--nodelist={node}", "--exclusive"),
        *("--output=/dev/null", "--wrap=true"),
    ).strip()
    assert cluster.finished(urgent)["JobState"] == "COMPLETED"


def test_preempted_then_requeued(jobs):
    one, cluster = jobs.disturbed, jobs.disturbed.cluster
    one.held_at(12)
    preempt(cluster, "n3")
    cluster.start_again(one.job, 1)
    assert f"stopped by SIGTERM at step 12 of {STEPS}; the same command resumes there" in one.log()
    one.held_at(22)
    cluster.call("scontrol", "requeue", one.job)
    cluster.start_again(one.job, 2)
    assert_as_if_undisturbed(one, jobs.undisturbed, restarts=2)


def test_two_nodes_out_of_time_then_one_of_them_lost(jobs):
    """SIGUSR1 ahead of the time limit stores the step; a node that dies takes its own with it."""
    pair, cluster = jobs.disturbed_pair, jobs.disturbed_pair.cluster
    pair.held_at(12, ranks=2)
    hours, minutes, seconds = map(int, cluster.show(pair.job)["RunTime"].split(":"))
    ran = 3600 * hours + 60 * minutes + seconds
    cluster.update(pair.job, TimeLimit=ran // 60 + 2)  # between one and two minutes are left
    cluster.start_again(pair.job, 1)
    cluster.update(pair.job, TimeLimit=30)
    assert f"stopped by SIGUSR1 at step 12 of {STEPS}; the same command resumes there" in pair.log()
    pair.held_at(22, ranks=2)
    cluster.kill_node("n2")
    cluster.start_again(pair.job, 2, ReqNodeList="n1,n6")
    assert_as_if_undisturbed(pair, jobs.undisturbed_pair, restarts=2)
    assert cluster.show(pair.job)["NodeList"] == "n[1,6]"


def test_a_cancelled_job_stays_cancelled(jobs):
    job, cluster = jobs.cancelled, jobs.cancelled.cluster
    job.held_at(3)
    cluster.call("scancel", job.job)
    assert cluster.finished(job.job)["JobState"] == "CANCELLED"
    cluster.until(lambda: "stopped by SIGTERM at step 3 of" in job.log(), "its last word")
    assert cluster.show(job.job)["Restarts"] == "0"


def test_a_sweep_goes_on_whatever_befalls_its_jobs(jobs):
    """Two processes a job; one job is preempted and out of time, another fails by itself."""
    sweep, cluster = jobs.sweep, jobs.sweep.cluster
    sweep.held_at(12, ranks=2)
    (job,) = (j for j in cluster.call("squeue", "-ho%A", "-wn4").split() if j)
    preempt(cluster, "n4")
    cluster.start_again(job, 1)
    sweep.held_at(22, ranks=2)
    cluster.call("scancel", "--signal=USR1", job)  # as Slurm does ahead of the time limit
    cluster.start_again(job, 2)
    output, _ = sweep.process.communicate(timeout=300)
    assert sweep.process.returncode == 1, output
    lines = output.splitlines()
    assert any(re.fullmatch(r"#0 \d+_0 model=sema_nano: finished", line) for line in lines), output
    assert lines[-3:-1] == [
        "failed:",
        "  model=timm: config key 'model.name' has no value: set model.name=...",
    ], output
    assert lines[-1].startswith("error: 1 job(s) failed")
    assert_same_run(sweep, jobs.undisturbed_pair, restarts=2)
