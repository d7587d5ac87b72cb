"""What a long measurement shows as it goes: a bar on a terminal, lines anywhere."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
