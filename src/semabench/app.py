"""What train.py, eval.py and the command line share: mistakes told in one line, exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from semabench.config.key import unknown_key
from semabench.errors import SemabenchError, first_line, nearest
from semabench.files import atomic_write

INTERRUPTED = 130  # the shell's code for ctrl-C
UNEXPECTED = 70  # sysexits' "software": a fault of ours, or of a library
DEBUG = "SEMABENCH_DEBUG"
RESULT_FILE = "SEMABENCH_RESULT_FILE"  # where a job of a sweep in a process of its own leaves it

failed_jobs: list[str] = []  # of a sweep: "<overrides>: <reason>"; the sweeper fills it


class JobFailed(Exception):  # noqa: N818  the error itself was told and is let go
    """A job of a sweep failed: the reason in one line."""


def run_app(main: Callable[[], None], keys: Callable[[], list[str]]) -> None:
    """Run a Hydra app; turn its and our errors into one line on stderr and exit code 2.

    Args:
        main: the function decorated by ``hydra.main``.
        keys: gives all valid config keys, to suggest the nearest to a mistaken one.
    """
    from hydra.errors import HydraException

    # Hydra would print a paragraph and exit by itself; with this it raises, and we tell.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    with one_line_errors():
        _order_words(keys)
        try:
            main()
        except HydraException as error:
            fail(hydra_message(error, keys()))
        except ValueError as error:
            if "Config group override" not in str(error):
                raise
            fail(f"{error}: after a group, model or data, comes the name of an option of it.")
        except OSError as error:  # of Hydra's own files; those of a job are told by the job
            if error.filename is None:
                raise
            fail(f"cannot write {error.filename}: {error.strerror}.")
    if failed_jobs:
        print("\n".join(["failed:", *(f"  {job}" for job in failed_jobs)]), file=sys.stderr)
        fail(f"{len(failed_jobs)} job(s) failed; the same command does what is missing.", code=1)


def _order_words(keys: Callable[[], list[str]]) -> None:
    """Let flags stand anywhere among the overrides, which Hydra's parser takes first or last only.

    A flag that is none of Hydra's is told with the key that it probably means.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = lambda message: fail(f"{message}.")  # type: ignore[method-assign]
    known, unknown = parser.parse_known_intermixed_args()
    for word in unknown:
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        valid = keys()
        hint = f" {name}=..." if name in valid else f"; {unknown_key(name, valid)}"
        fail(f"{word}: config keys are given without dashes, KEY=VALUE{hint}")
    overrides = list(known.overrides)
    flags = [word for word in sys.argv[1:] if word not in overrides]
    sys.argv[1:] = [*flags, *overrides]


def run_job(job: Callable[[Any], float | None], composed: Any) -> float | None:
    """Run the body of a Hydra job; return its result: what a search optimises, if anything.

    By itself, it ends the process with one line where the user can mend what went wrong. In a
    sweep, it raises, so that the launcher goes on to the next job; a signal stops the sweep.

    Raises:
        JobFailed: in a sweep, whatever went wrong. It holds nothing of the job, whose memory on a
            GPU would else be missing to the next.
    """
    if not _in_sweep():
        with one_line_errors():
            _refuse_sweep_options()
            result = job(composed)
            if path := os.environ.get(RESULT_FILE):
                atomic_write(Path(path), json.dumps(result))
            return result
    try:
        return job(composed)
    except SemabenchError as error:
        reason = " ".join(str(error).split())
        print(f"error: {reason}", file=sys.stderr)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        reason = _surroundings(error) or unexpected(error)
        print(f"error: {reason}", file=sys.stderr)
    raise JobFailed(reason)


def asked_for() -> list[str]:
    """Return the overrides of this job: what the command line asks for, or a sweep for it."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def _refuse_sweep_options() -> None:
    """Refuse a launcher or sweeper that is asked for without a sweep: Hydra does not look at it."""
    from hydra.core.hydra_config import HydraConfig

    words = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    for word in words:
        if re.match(r"hydra[/.](launcher|sweeper)\b", word):
            raise SemabenchError(
                f"{word} has no effect on a single job: add -m, which makes it a sweep (of one job "
                "or many), or leave it out."
            )


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr where the user can mend what went wrong.

    Around the body of a Hydra job, it also keeps Hydra from adding lines of its own. Names of files
    that are no UTF-8 are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except SemabenchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted.", INTERRUPTED)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        if told := _surroundings(error):
            fail(told)
        fail(unexpected(error), UNEXPECTED)


def _surroundings(error: Exception) -> str:
    """Say what is wrong with the machine or the files rather than with us; nothing of the rest."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return (
            f"{first_line(error).split('. ')[0]}: take a smaller batch; in training, "
            "trainer.accumulate goes through it in more micro-batches."
        )
    if isinstance(error, PermissionError) and error.filename is not None:
        return (
            f"no permission for {error.filename}: change its mode or owner, or take another place."
        )
    return ""


def unexpected(error: Exception) -> str:
    """Keep the traceback of a fault in a file; return one line with its place."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="semabench-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"{sys.argv}\n")
        traceback.print_exception(error, file=log)
    return (
        f"{type(error).__name__}: {first_line(error)[:300]} (unexpected; the traceback is in "
        f"{log.name}, {DEBUG}=1 shows it)"
    )


def fail(message: str, code: int = 2) -> NoReturn:
    """Print ``error: message`` on stderr and exit."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _quoted(override: str) -> str:
    """Say how to write a value that Hydra's grammar cannot read as it stands."""
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "[{'\"" or not re.fullmatch(r"[\w./@+~:-]+", key):
        return ""
    quote = "'" if '"' in value and "'" not in value else '"'
    escaped = value.replace('"', '\\"') if quote == '"' else value
    return (
        f"{override}: the value has signs of Hydra's grammar in it; quote it for Hydra, and once "
        f"more for the shell, as in {shlex.quote(f'{key}={quote}{escaped}{quote}')}"
    )


def hydra_message(error: Exception, keys: list[str]) -> str:
    """Say in one line what Hydra found wrong with the words of an app that has these keys."""
    text = str(error)
    if told := _quoted(getattr(error, "override", "")):
        return told
    if match := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        key = match[1].lstrip("+~")
        inner = re.search(r"Key '([^']+)'", str(error.__cause__))
        group = key.partition(".")[0]
        if inner and inner[1] == group != key and group in keys:  # an option of it is to be chosen
            return f"{key} needs {group}=NAME, too."
        if key in keys:  # what is in it is wrong; Hydra's cause, if any, has the name
            return f"{key} has no '{inner[1]}'." if inner else f"{key} cannot have that value."
        return unknown_key(key, keys)
    if match := re.search(r"Error locating target '(optuna[^']*)'", text):
        return f"{match[1]} is not installed: pip install 'semabench[sweep]'."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        if group == "hydra/launcher" and option == "joblib":
            return f"{match[1]} needs a plugin of Hydra's: pip install 'semabench[sweep]'."
        found = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        options = [name for name in found if not name.startswith("_")]
        return f"there is no {group}={option}.{nearest(option, options)}"
    return text
