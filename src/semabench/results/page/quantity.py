"""What a page draws and tabulates: how each number is named, scaled and written."""

from __future__ import annotations

from dataclasses import dataclass

ERRORS = {
    "seeds": "standard error of the mean over {seeds} seeds, s/√seeds",
    "samples": "binomial standard error over the samples of one run, not over seeds",
    "batches": "half the interquartile range over the batches of one run",
    "windows": "half the interquartile range over the timed windows of one process",
    "range": "lowest to highest of heads, layers and seeds",
}
"""What an error is of; the key says so in `Value.error_of`."""


@dataclass(frozen=True)
class Value:
    """One number with its error.

    Attributes:
        mean: over ``seeds`` seeds.
        low, high: the ends of its error bar; the mean itself where nothing tells an error.
        error_of: a key of `ERRORS`; empty without an error.
    """

    mean: float
    low: float
    high: float
    error_of: str = ""
    seeds: int = 1


@dataclass(frozen=True)
class Quantity:
    """A field of the record, as an axis and as a column.

    Attributes:
        name: as in ``Top-1 accuracy``.
        unit: empty for a pure number.
        log: whether its axis is logarithmic at first.
        discrete: whether the axis has its ticks at the values that occur.
        limits: what no value is beyond.
        decimals: None: as many as three significant figures need.
    """

    name: str
    unit: str = ""
    log: bool = False
    discrete: bool = False
    limits: tuple[float, float] | None = None
    decimals: int | None = None

    def text(self, value: Value) -> str:
        """Return ``95.6 ±0.7``, ``0.12 (0.10 to 0.15)`` for a range, or the number alone."""
        error = max(value.high - value.mean, value.mean - value.low)
        places = self._places(value.mean)
        if self.decimals is not None and 0 < error < 10**-places:
            places += 1
        mean = f"{value.mean:,.{places}f}"
        if not value.error_of:
            return mean
        if value.error_of == "range":
            low, high = (self.text(Value(v, v, v)) for v in (value.low, value.high))
            return mean if low == high else f"{mean} ({low} to {high})"
        return f"{mean} ±{error:,.{places}f}"

    def _places(self, value: float) -> int:
        if self.decimals is not None:
            return self.decimals
        size = abs(value)
        if size >= 99.95 or size == 0:
            return 0
        places = 2
        while size < 0.9995 and places < 8:
            size, places = size * 10, places + 1
        return places if size < 9.995 else 1


_PERCENT = {"unit": "%", "limits": (0.0, 100.0), "decimals": 1}

QUANTITIES: dict[str, Quantity] = {
    "resolution": Quantity("Resolution", "px", log=True, discrete=True, decimals=0),
    "tokens": Quantity("Tokens n", log=True, discrete=True, decimals=0),
    "top1": Quantity("Top-1 accuracy", **_PERCENT),  # type: ignore[arg-type]
    "top5": Quantity("Top-5 accuracy", **_PERCENT),  # type: ignore[arg-type]
    "gmacs": Quantity("Multiply-adds of one image", "GMACs", log=True),
    "images_per_second": Quantity("Throughput", "images per second", log=True),
    "latency_ms": Quantity("Latency of a batch", "ms", log=True),
    "joules_per_image": Quantity("Energy of an image", "J", log=True),
    "peak_memory_mib": Quantity("Peak memory", "MiB", log=True),
    "n_max_weight": Quantity("n · largest weight", log=True),
    "entropy_ratio": Quantity("Entropy / log n"),
    "effective_keys": Quantity("Effective number of keys", log=True),
    "mean_distance": Quantity("‖attention − mean(V)‖ / ‖mean(V)‖", log=True),
    "softmax_distance": Quantity("‖full softmax − mean(V)‖ / ‖mean(V)‖", log=True),
    "weight_sum": Quantity("Sum of weights"),
}
"""By field of `record.Record`."""
