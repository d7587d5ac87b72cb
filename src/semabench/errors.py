"""Errors a user can act on: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SemabenchError(Exception):
    """A mistake of the user's or a fault of the surroundings, told in one line.

    The apps print it without a traceback and exit with status 2.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the valid name closest to ``name``, else all names.

    >>> nearest("widow_size", ["window_size", "shift"])
    " Did you mean 'window_size'?"
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Choose one of: {', '.join(choices)}." if choices else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its type where it says nothing.

    >>> first_line(ValueError("\\n no such thing\\n  at all"))
    'no such thing'
    >>> first_line(KeyboardInterrupt())
    'KeyboardInterrupt'
    """
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
