"""What a measurement of cost says as it goes: the estimate, a bar, a line a row."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semabench.results.record import Record


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def doing(self, what: str) -> None:
        """Name what goes on, beside the bar."""
        self.bar.update(self.task, description=what)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self.bar.advance(self.task, steps)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, markup=False)


def minutes(seconds: float) -> str:
    """Return a duration to read, as ``40 s`` or ``6.5 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def line_of(row: Record) -> str:
    """Return one line about a measured row."""
    parts = [
        f"{row.model:<{max(12, len(row.model))}}",
        f"{row.mode} {row.execution}",
        f"{row.resolution:>4} px",
        f"batch {row.batch_size}",
        f"{_number(row.images_per_second, row.images_per_second_spread)} img/s",
        f"{_number(row.latency_ms, None)} ms",
    ]
    if row.peak_memory_mib is not None:
        parts.append(f"{row.peak_memory_mib:,.0f} MiB")
    if row.joules_per_image is not None:
        parts.append(f"{row.joules_per_image:.3g} J/img")
    if row.asked_batch_size is not None:
        parts.append(f"(out of memory at batch {row.asked_batch_size})")
    return "  ".join(parts)


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if spread is None:
        return text
    return f"{text} ±{spread:,.0f}" if value >= 100 else f"{text} ±{spread:.2g}"
