"""Weights & Biases: one run a training, joined by its evaluations; works without network.

Only what the project hands over is stored: the config, the metrics, the rows. What wandb would
collect by itself (command line, host and user names, git remote and diff, code, installed
packages, console output) is switched off, and API keys stay where wandb reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import netrc
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from semabench.errors import SemabenchError, first_line, nearest
from semabench.files import atomic_write, readable
from semabench.results.record import Record

if TYPE_CHECKING:
    import wandb

MODES = ("auto", "online", "offline", "disabled")
RUN_ID = "wandb_id"  # file in a run's directory: training and evaluation share its id
STEP_METRIC = "eval/resolution"
SERIES = "series"  # the config key that runs share which differ by their seed alone

METRICS = (
    *("resolution", "top1", "top1_stderr", "top5", "top5_stderr"),
    *("images_per_second", "peak_memory_mib", "gmacs", "n"),
)
_SERVER = "https://api.wandb.ai"
_PATIENCE = 5.0

log = logging.getLogger(__name__)


def wandb_mode(requested: str) -> str:
    """Return ``online``, ``offline`` or ``disabled``: what is requested, as far as it can be had.

    ``auto`` is online if the user is logged in (which is looked up locally) and the server
    answers, else offline; it follows the environment variable WANDB_MODE if that is set.
    ``online`` falls back to offline, with a warning, if the server does not answer.

    Raises:
        SemabenchError: an unknown mode.
    """
    if requested not in MODES:
        raise SemabenchError(f"unknown W&B mode '{requested}'.{nearest(requested, MODES)}")
    if requested == "auto":
        requested = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        if requested not in MODES[1:]:
            raise SemabenchError(f"WANDB_MODE is '{requested}'.{nearest(requested, MODES[1:])}")
    if requested == "online":
        if not logged_in():
            log.warning("W&B: not logged in (run `wandb login`): logging offline.")
            return "offline"
        if not _reachable():
            log.warning("W&B: %s does not answer: logging offline.", _server())
            return "offline"
    return requested


def logged_in() -> bool:
    """Return whether wandb will find credentials: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    names = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    host = urlsplit(_server()).hostname or ""
    for path in (Path(name).expanduser() for name in names):
        try:
            if path.is_file() and netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def start_run(
    run_dir: Path,
    run_id: str,
    *,
    project: str,
    name: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    mode: str = "auto",
    job_type: str = "train",
) -> wandb.Run:
    """Start the W&B run ``run_id``, or join it if it exists; never an error without network.

    Online, the server adds to the run of that id. Offline there is nobody to ask: each call
    writes a directory of its own below ``run_dir/wandb``, all with the same id, which
    ``wandb sync`` uploads in the order of their start times.

    Args:
        run_dir: the run's directory; wandb's files go to ``wandb/`` in it.
        run_id: a function of the config, so that a repeated job finds its own run.
        config: stored as is: hand over no secrets.
        mode: as in :func:`wandb_mode`.

    Raises:
        SemabenchError: an unknown mode, or wandb cannot write its files.
    """
    tags = [tag[:64] for tag in tags if tag]  # W&B refuses longer ones, and empty ones
    # Reports on itself that W&B sends to its makers: without network it tries for half a minute.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    mode = wandb_mode(mode)
    (run_dir / "wandb").mkdir(parents=True, exist_ok=True)
    # Tables are staged here, not in the home directory, which may not be writable.
    place = _nameable(run_dir)
    os.environ.setdefault("WANDB_DATA_DIR", str(place.absolute() / "wandb"))
    arguments: dict[str, Any] = {
        "dir": str(place),
        "id": run_id,
        "project": readable(project),
        "name": readable(name),
        "group": group and readable(group),
        "tags": [readable(tag) for tag in tags],
        "config": _stored(dict(config or {})),
        "job_type": job_type,
        "reinit": "finish_previous",
    }
    if mode == "online":
        settings = _settings(silent=False)
        try:
            with _stored_command_line():
                return wandb.init(**arguments, mode="online", resume="allow", settings=settings)
        except wandb.errors.Error as error:
            log.warning("W&B: %s: logging offline.", first_line(error))
            wandb.teardown()  # its process keeps the id for the run that did not start
            mode = "offline"
    try:
        with _stored_command_line():
            return wandb.init(**arguments | {"mode": mode}, settings=_settings(silent=True))
    except wandb.errors.Error as error:
        raise SemabenchError(f"W&B cannot start in {run_dir}: {error}") from error


def _stored(value: Any) -> Any:
    """Return what W&B can store of a value: it takes no text that is not UTF-8."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {_stored(name): _stored(part) for name, part in value.items()}
    return [_stored(part) for part in value] if isinstance(value, list | tuple) else value


def _nameable(directory: Path) -> Path:
    """Return a directory, or the link to it, kept in the cache, where its name is not UTF-8.

    Raises:
        SemabenchError: the cache cannot be written.
    """
    target = directory.resolve()
    if str(target) == readable(str(target)):
        return directory
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    link = Path(os.path.expanduser("~/.cache/semabench")) / digest
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise SemabenchError(f"cannot write {link}: {error.strerror or error}.") from error
    return link


@contextlib.contextmanager
def _stored_command_line() -> Iterator[None]:
    """Let wandb, which reads the command line to leave it out, read one that it can store."""
    typed, sys.argv = sys.argv, [readable(word) for word in sys.argv]
    try:
        yield
    finally:
        sys.argv = typed


def log_evaluation(
    run: wandb.Run, records: Sequence[Record], first_step: int | None = None
) -> None:
    """Log ``eval/*`` against ``eval/resolution``, one step a row, and all rows as a table.

    The config gets ``mixer`` and :data:`SERIES`, to group runs by.

    Args:
        run: from :func:`start_run`.
        records: the rows, in the order in which they are to be drawn.
        first_step: W&B's step of the first row, beyond all steps the run has had. Needed only
            where wandb cannot know them: offline, in a run whose training wrote a directory of
            its own (steps that the server has already would be dropped).
    """
    import wandb

    run.define_metric(STEP_METRIC)
    for prefix in dict.fromkeys(f"eval{record.told_apart}" for record in records):
        run.define_metric(f"{prefix}/*", step_metric=STEP_METRIC)
    if records:
        first = records[0]
        # As ``sema, sema_nano, 7ba704``: the mixer, the model, the training config's hash.
        names = (first.mixer_or_model, first.model, first.config[:6])
        series = ", ".join(dict.fromkeys(filter(None, names)))
        told = {"mixer": first.mixer_or_model, SERIES: series}
        run.config.update(_stored(told), allow_val_change=True)
    for offset, record in enumerate(records):
        row = record.to_dict()
        prefix = f"eval{record.told_apart}"
        metrics = {f"{prefix}/{name}": row[name] for name in METRICS if row[name] is not None}
        metrics[STEP_METRIC] = record.resolution
        run.log(metrics, step=None if first_step is None else first_step + offset)
    if records:
        rows = [record.to_dict() for record in records]
        table = wandb.Table(
            columns=list(rows[0]), data=[_stored(list(row.values())) for row in rows]
        )
        step = None if first_step is None else first_step + len(records)
        run.log({"eval/results": table}, step=step)


def keep_artifact(run: wandb.Run, file: Path, kind: str, told: Mapping[str, Any]) -> None:
    """Upload a file as the artifact ``<kind>-<run id>`` of an online run; a new version each time.

    Args:
        run: from :func:`start_run`; one that is offline keeps none.
        file: what it holds.
        kind: W&B's type: ``model``, ``results``.
        told: its metadata.
    """
    import wandb

    if run.settings.mode != "online":
        return
    try:
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind, metadata=_stored(dict(told)))
        artifact.add_file(str(file))
        run.log_artifact(artifact)
    except Exception as error:  # a server's, a disk's: the file itself stays where it is
        log.warning("W&B does not keep %s as an artifact: %s.", file, first_line(error))


def finish_run(run: wandb.Run) -> bool:
    """End a run; where its server does not answer, say how to upload the rest. Return whether."""
    import wandb

    try:
        run.finish()
    except TimeoutError:
        place = Path(run.dir).parent
        log.warning("W&B does not answer: `wandb sync %s` uploads what is missing.", place)
        with contextlib.suppress(Exception):  # or it would try once more when Python ends
            wandb.teardown()
        return False
    return True


FINISH_SECONDS = 120.0  # that a run that has ended waits for what is not uploaded yet


def _settings(silent: bool) -> wandb.Settings:
    """Return the settings under which wandb collects nothing by itself but device metrics."""
    import wandb

    # Whose server has gone in mid-run would hold a finished job for half an hour.
    ending: dict[str, Any] = {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    known = wandb.Settings.model_fields  # older clients have no such thing
    return wandb.Settings(
        **{name: value for name, value in ending.items() if name in known},
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        program="semabench",
        save_code=False,
        silent=silent,
        x_disable_meta=True,
        x_save_requirements=False,
        # Slurm ends wandb's process at once: what it still holds then is lost. It would be 15 s.
        x_transaction_log_flush_interval=1.0,
    )


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or _SERVER


def _reachable() -> bool:
    """Return whether the server answers at all, through the user's proxy if there is one."""
    try:
        urllib.request.urlopen(_server(), timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def forget_run_id(run_dir: Path) -> None:
    """Let the next start of the run have an id of its own."""
    (run_dir / RUN_ID).unlink(missing_ok=True)


def run_id(run_dir: Path) -> str:
    """Return the id, made at the first start of the run, by W&B where its sweep has started it."""
    path = run_dir / RUN_ID
    if not path.exists():
        by_sweep = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        atomic_write(path, f"{by_sweep or secrets.token_hex(6)}\n")
    return path.read_text().strip()
