"""A real Slurm on this machine: munged, slurmctld and a slurmd for each of six virtual nodes."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2", "n3", "n4", "n5", "n6")
# Debian puts daemons where a user's PATH may not look.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIG = """
ClusterName=semabench
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
SlurmdTimeout=0
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=120 DefaultTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF DefaultTime=60
"""


def missing() -> list[str]:
    """Return which programs of Slurm are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """A running Slurm; its state, configuration, ports and logs are its own.

    The partition ``high`` preempts ``low``: SIGTERM, and two minutes to store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(root / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons; return when all nodes are idle."""
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(7)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in sockets]
        user = pwd.getpwuid(os.getuid()).pw_name
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        text = CONFIG.format(root=self.root, ports=ports, user=user, nodes=nodes)
        (self.root / "slurm.conf").write_text(text)
        for name in ("state", *NODES):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        self._daemon(
            "munged",
            *("--force", "--foreground"),
            *(f"--{option}={self.root / name}" for option, name in files.items()),
        )
        self.until((self.root / "munge.socket").exists, "munged listens", seconds=30)
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self._daemon(node, "-D", "-N", node, program="slurmd")
        self.until(
            lambda: self.call("sinfo", "-hN", "-plow", "-o%T").split() == ["idle"] * len(NODES),
            "idle nodes",
            seconds=60,
        )

    def stop(self) -> None:
        """End all that runs in the cluster, then the daemons, whatever state they are in."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call(
                "scancel", "--signal=KILL", "--full", *self.call("squeue", "-h", "-o%A").split()
            )
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=5)
        for number in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def kill_node(self, node: str) -> None:
        """Let a node die: its slurmd and all that it runs, at once."""
        victims = [n for n in self._processes() if _variable(n, "SLURMD_NODENAME") == node]
        self._daemons.pop(node).kill()
        for number in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        # As slurmctld finds out by itself after SlurmdTimeout.
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def call(self, *command: str, cwd: Path | None = None, **variables: str) -> str:
        """Run one of Slurm's commands; return what it printed."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def show(self, job: str) -> dict[str, str]:
        """Return what ``scontrol show job`` knows."""
        words = self.call("scontrol", "show", "job", "--oneliner", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def update(self, job: str, **values: object) -> None:
        """Change a job's properties, as an administrator can."""
        self.call("scontrol", "update", f"jobid={job}", *(f"{k}={v}" for k, v in values.items()))

    def start_again(self, job: str, restarts: int, **values: object) -> None:
        """Wait until a job is requeued for this time; spare it Slurm's two minutes of waiting.

        Args:
            job: its number.
            restarts: how often it will have been started again.
            values: other properties to change before it starts.
        """

        def runs_again() -> bool:
            now = self.show(job)
            if int(now["Restarts"]) < restarts:
                return False
            if now["JobState"] == "PENDING":
                eligible = now["EligibleTime"]  # two minutes from now
                if eligible != "Unknown":
                    wait = datetime.fromisoformat(eligible) - datetime.now()
                    if wait.total_seconds() > 10:  # in less than two, the old start's end bars it
                        self.update(job, StartTime="now+3", **values)
            return now["JobState"] == "RUNNING"

        self.until(runs_again, f"{job} runs again")

    def finished(self, job: str) -> dict[str, str]:
        """Wait for the end of a job; return what Slurm knows of it."""
        ends = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        self.until(lambda: self.show(job)["JobState"] in ends, f"{job} ends")
        return self.show(job)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Wait for a condition; on a busy machine that may take its time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.SubprocessError):
                if true():
                    return
            time.sleep(0.2)
        raise AssertionError(f"waited {seconds:.0f} s for this: {what}\n{self._logs()}")

    def _daemon(self, name: str, *arguments: str, program: str | None = None) -> None:
        log = (self.root / f"{name}.log").open("ab")
        # Killed with us, even if nobody is left to tear down.
        command = ["setpriv", "--pdeathsig", "KILL", program or name, *arguments]
        self._daemons[name] = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _processes(self) -> list[int]:
        """Return the processes that run with this cluster's configuration, but for ourselves."""
        mine = self.environment["SLURM_CONF"]
        numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [n for n in numbers if n != os.getpid() and _variable(n, "SLURM_CONF") == mine]

    def _logs(self) -> str:
        logs = sorted(self.root.glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in logs)


def _variable(process: int, name: str) -> str | None:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            if entry.startswith(f"{name}=".encode()):
                return os.fsdecode(entry.partition(b"=")[2])
    return None


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster while the block lasts; nothing of it is left, even if the start fails."""
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: munge's socket has a length limit
    root.chmod(0o755)
    cluster = Cluster(root)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)
