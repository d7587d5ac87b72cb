"""What a measurement of cost says in one line: a duration, a row."""

from __future__ import annotations

from semabench.results.record import Record


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
