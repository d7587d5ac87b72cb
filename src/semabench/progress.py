"""What a long data job shows while it runs: bars and one-line notes, on stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from semabench.files import readable
from semabench.processes import global_rank


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


def item_bar() -> Progress:
    """Return a bar that counts items (images, classes, samples)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_console(),
    )


def byte_bar() -> Progress:
    """Return a bar that counts bytes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=_console(),
    )


def note(line: str) -> None:
    """Print one plain line for the user on stderr."""
    _console().print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    # A new one each time: it follows whatever sys.stderr is now (pytest, Hydra redirect it).
    return Console(stderr=True)


def tally(names: Iterable[str], most: int = 3) -> str:
    """Count names, the most frequent first: ``cat 12, dog 3, owl 1, 2 more kinds``.

    >>> tally(["a", "b", "a"])
    'a 2, b 1'
    """
    counts = Counter(names).most_common()
    told = [f"{readable(name)} {count}" for name, count in counts[:most]]
    return ", ".join([*told, *([f"{len(counts) - most} more kinds"] if counts[most:] else [])])


@contextlib.contextmanager
def said_if_slow(line: str, seconds: float = 4.0) -> Iterator[None]:
    """Print a line on stderr once the block has taken so many seconds, on the first process."""
    timer = threading.Timer(seconds, note, [line])
    timer.daemon = True
    if global_rank() == 0:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident:  # it was started: leave no thread behind
            timer.join()


class Screen:
    """A context that shows a bar on a terminal, and lines anywhere.

    Args:
        total: steps of the bar.
    """

    def __init__(self, total: int) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        disable = not sys.stdout.isatty()
        self.bar = Progress(*columns, console=self.console, transient=True, disable=disable)
        self.task = self.bar.add_task("starting", total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def doing(self, what: str) -> None:
        """Name what goes on, beside the bar."""
        self.bar.update(self.task, description=what)

    def advance(self) -> None:
        """Move the bar by a step."""
        self.bar.advance(self.task)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, markup=False)
