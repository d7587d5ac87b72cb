"""What a long data job shows while it runs: bars and one-line notes, on stderr."""

from __future__ import annotations

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
