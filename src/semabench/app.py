"""What train.py, eval.py and the command line share: mistakes told in one line, exit code 2."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from semabench.errors import SemabenchError, nearest

INTERRUPTED = 130  # the shell's code for ctrl-C


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
        try:
            main()
        except HydraException as error:
            fail(_hydra_message(error, keys()))
        except OSError as error:  # of Hydra's own files; those of a job are told by the job
            if error.filename is None:
                raise
            fail(f"cannot write {error.filename}: {error.strerror}.")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr where the user can mend what went wrong.

    Around the body of a Hydra job, it also keeps Hydra from adding lines of its own.
    """
    try:
        yield
    except SemabenchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted.", INTERRUPTED)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print ``error: message`` on stderr and exit."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _hydra_message(error: Exception, keys: list[str]) -> str:
    text = str(error)
    if match := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        key = match[1].lstrip("+~")
        return f"unknown config key '{key}'.{nearest(key, keys)}"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"there is no {group}={option}.{nearest(option, options)}"
    return text
