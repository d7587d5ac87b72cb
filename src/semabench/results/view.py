"""How a measure describes its tables and figures, as data that every renderer draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from semabench.results.record import Record, Take
from semabench.results.summary import Estimate, Line, Place, rows_of, span
from semabench.results.text_table import Grid

Lines: TypeAlias = Sequence[Line]


@dataclass(frozen=True)
class Quantity:
    """A number of the record, as an axis and in words."""

    name: str  # as in ``Top-1 accuracy``
    unit: str = ""  # empty for a pure number
    log: bool = False  # whether its axis is logarithmic at first
    discrete: bool = False  # whether the axis has its ticks at the values that occur
    limits: tuple[float, float] | None = None  # what no value is beyond
    decimals: int | None = None  # None: as many as three significant figures need
    # how it is had from a row; None: it is the field of its name in `QUANTITIES`
    take: Take | None = None

    @property
    def title(self) -> str:
        """Name and unit, as ``Latency of a batch (ms)``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: Estimate) -> str:
        """Return ``95.6 ±0.7``, ``0.12 (0.10 to 0.15)`` for a range, or the number alone."""
        error = max(value.high - value.mean, value.mean - value.low)
        places = self._places(value.mean)
        if self.decimals is not None and 0 < error < 10**-places:
            places += 1
        mean = f"{value.mean:,.{places}f}"
        if not value.of:
            return mean
        if value.of == "range":
            low, high = (self.text(Estimate(v, v, v)) for v in (value.low, value.high))
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


def _memory_per_image(row: Record) -> float | None:
    if row.peak_memory_mib is None or not row.batch_size:
        return None
    return row.peak_memory_mib / row.batch_size


_PERCENT = (0.0, 100.0)

QUANTITIES: dict[str, Quantity] = {
    "resolution": Quantity("Resolution", "px", log=True, discrete=True, decimals=0),
    "tokens": Quantity("Tokens n", log=True, discrete=True, decimals=0),
    "pairs": Quantity("Pairs in the image, m", log=True, discrete=True, decimals=0),
    "top1": Quantity("Top-1 accuracy", "%", limits=_PERCENT, decimals=1),
    "top5": Quantity("Top-5 accuracy", "%", limits=_PERCENT, decimals=1),
    "gmacs": Quantity("Multiply-adds of one image", "GMACs", log=True),
    "images_per_second": Quantity("Throughput", "images per second", log=True),
    "latency_ms": Quantity("Latency of a batch", "ms", log=True),
    "joules_per_image": Quantity("Energy of an image", "J", log=True),
    "busy_ms": Quantity("GPU at work, a batch", "ms", log=True),
    "launch_ms": Quantity("Host launching, a batch", "ms", log=True),
    "peak_memory_mib": Quantity("Peak memory", "MiB", log=True),
    "memory_per_image": Quantity("Peak memory per image", "MiB", log=True, take=_memory_per_image),
    "n_max_weight": Quantity("n · largest weight", log=True),
    "n_max_weight_highest": Quantity("n · largest weight of any query", log=True),
    "entropy_ratio": Quantity("Entropy / log n", limits=(0.0, 1.0)),
    "effective_keys": Quantity("Effective number of keys", log=True),
    "mean_distance": Quantity("‖attention − mean(V)‖ / ‖mean(V)‖", log=True),
    "softmax_distance": Quantity("‖full softmax − mean(V)‖ / ‖mean(V)‖", log=True),
    "weight_sum": Quantity("Sum of weights"),
}
"""By field of `record.Record`, but for what is worked out from several."""

POWER_LAW = (
    "Both axes are logarithmic, so a power law is a straight line: when the side doubles, a cost "
    "that is linear in the tokens grows fourfold, and a quadratic one sixteenfold."
)


def estimate(line: Line, place: Place, quantity: str) -> Estimate | None:
    """Return a quantity of a line at a place."""
    return line.estimate(place, QUANTITIES[quantity].take or quantity)


# How a table writes a number.


def with_error(value: Estimate, form: str = "{:.1f}") -> str:
    """Return ``95.6 ±0.7``."""
    text = form.format(value.mean)
    return text if value.stderr is None else f"{text} ±{form.format(value.stderr)}"


def with_spread(value: Estimate) -> str:
    """Return a number and its error with decimals by the number's size."""
    size = value.mean
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 4
    return with_error(value, f"{{:,.{digits}f}}")


def three_figures(value: Estimate) -> str:
    """Return the number alone: whole from 100, else with three significant figures."""
    return f"{value.mean:,.0f}" if value.mean >= 100 else f"{value.mean:.3g}"


def two_figures(value: float) -> str:
    """Return two significant figures, or one of a small number, in at most six characters.

    >>> [two_figures(v) for v in (7.6e-4, 0.0123, 0.123, 1.234, 12.3, 1234.0, 4.3e17, 0.0)]
    ['8e-4', '0.012', '0.12', '1.2', '12', '1,234', '4e17', '0']
    """
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-3 <= size < 99_999.5:
        return one_figure(value)
    if size < 0.0995:
        return f"{value:.{1 if size < 0.00995 else 2}g}"
    return f"{value:,.{2 if size < 0.995 else 1 if size < 9.95 else 0}f}"


def one_figure(value: float) -> str:
    """Return a number as ``4e17``."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@dataclass(frozen=True)
class Column:
    """A column of words or numbers before a table's places; ``number`` aligns it to the right."""

    name: str
    text: Callable[[Line], str]
    number: bool = False


def label_columns(lines: Lines) -> list[Column]:
    """Return model and mixer, what tells lines apart, parameters, and seeds and n if they vary."""
    names = dict.fromkeys(name for line in lines for name in line.label)
    words = [
        Column(name.replace("_", " "), partial(_label, name))
        for name in names
        if name in ("model", "mixer") or len({line.label.get(name) for line in lines}) > 1
    ]
    numbers = []
    if any(line.first.params is not None for line in lines):
        numbers.append(Column("params M", millions, True))
    if {line.seeds for line in lines} != {1}:
        numbers.append(Column("seeds", lambda line: str(line.seeds), True))
    if len({line.first.n for line in lines}) > 1:
        numbers.append(Column("n", lambda line: f"{line.first.n:,}", True))
    return [*words, *numbers]


def _label(name: str, line: Line) -> str:
    return line.label.get(name, "")


def millions(line: Line) -> str:
    """Return the parameters in millions."""
    params = next((row.params for row in line.records if row.params is not None), None)
    return "" if params is None else f"{params / 1e6:.2f}"


def by_resolution(line: Line, place: Place) -> tuple[tuple[Any, ...], str]:
    """Head the column of a place by its resolution."""
    return place, f"{place[0]} px"


@dataclass(frozen=True)
class Table:
    """A row a line, a column a place."""

    title: str  # empty where what splits it says enough
    quantity: str  # a key of `QUANTITIES`, which cells hold, and are sorted by
    form: Callable[[Estimate], str]  # writes it
    # the text of a point where the quantity alone does not make it; empty: none
    cell: Callable[[Line, Place], str] | None = None
    # what a place is sorted by, and its heading; line breaks are where it breaks best
    column: Callable[[Line, Place], tuple[tuple[Any, ...], str]] = by_resolution
    columns: Callable[[Lines], Sequence[Column]] = label_columns  # before the places
    # what lines must share to be in one table, as the end of its title
    split: Callable[[Line], str] = lambda line: line.sheet.title
    brief: bool = True  # whether the terminal shows it, too, not only report.md and the page


@dataclass(frozen=True)
class Rule:
    """What a panel compares with: a level across, a place upright, a span of places, or y = x."""

    label: str = ""
    y: float | None = None
    x: float | None = None
    to: float | None = None  # of a span that begins at x
    diagonal: bool = False


@dataclass(frozen=True)
class Panel:
    """One quantity against the figure's x."""

    y: str  # a key of `QUANTITIES`
    read: str  # how to read it, in one or two sentences; the page shows them
    title: str = ""  # over a plot with several panels; empty: the quantity's name
    note: Callable[[Lines], str] = lambda _: ""  # below that title
    rules: Callable[[Lines], Iterable[Rule]] = lambda _: ()  # what to compare with
    limits: tuple[float, float] | None = None  # of the plot's y axis
    plot: bool = True  # whether it is in the file of its figure, not on the page alone
    # whether there is something to show of these lines
    shown: Callable[[Lines], bool] = lambda _: True


@dataclass(frozen=True)
class Figure:
    """Quantities against x: on the page each by itself, in a file one a sheet of lines."""

    stem: str  # of the files; the sheet's name is added
    x: str  # a key of `QUANTITIES`
    panels: tuple[Panel, ...]
    title: Callable[[Lines], str] = lambda _: ""  # of a file with one panel, or over all
    # what its lines share, and what their errors are
    captions: Callable[[Lines], Sequence[str]] = lambda _: ()
    # what it draws, of all lines of its measure
    lines: Callable[[Lines], Lines] = lambda lines: lines
    # what a file has room for, of these; the page shows all
    room: Callable[[Lines], Lines] = lambda lines: lines


def on_page(x: str, y: str, read: str, rules: Callable[[Lines], Iterable[Rule]]) -> Figure:
    """Return a figure of one quantity that is on the page alone, not in a file."""
    return Figure("", x, (Panel(y, read, rules=rules, plot=False),))


@dataclass(frozen=True)
class View:
    """All that the renderers know about the rows of one measure."""

    measure: str  # of the rows
    title: str  # of their section
    about: str  # what they are, in a sentence or two
    lines: Callable[[Sequence[Record]], list[Line]]  # groups rows
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    # what all lines share and what the numbers are, in sentences
    notes: Callable[[Lines], Sequence[str]]
    # files of the rows: names, and what makes their text
    csv: tuple[tuple[str, Callable[[Sequence[Record]], str]], ...] = ()
    # tables of what is worked out from the lines
    more: Callable[[Lines], Sequence[Grid]] = lambda _: ()


def facts(line: Line, place: Place) -> dict[str, str]:
    """Return what a reader may ask about a point, as text by name."""
    rows = line.points[place]
    first = rows[0]
    if first.input_bound is None:
        told = {"resolution": f"{first.resolution} px"}
    else:
        told = {"grid": f"{first.resolution} × {first.resolution}"}
    if first.n:
        told["n"] = f"{first.n:,}"
    if first.rounds:
        told["batch"] = str(first.batch_size)
        told["windows"] = str(first.rounds)
    if first.asked_batch_size:
        told["batch"] = f"{first.batch_size} (memory ran out at {first.asked_batch_size})"
    if first.queries:
        told["queries"] = span(row.queries or 0 for row in rows)
    if first.layer:
        told["heads and layers"] = str(len({(row.layer, row.head) for row in rows}))
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    if seeds:
        told["seeds"] = f"{len(seeds)} ({', '.join(map(str, seeds))})"
    return told


def chance(lines: Lines) -> list[Rule]:
    """Return the accuracy of guessing, in percent."""
    classes = sorted({row.classes for row in rows_of(lines) if row.classes})
    return [Rule("chance", y=100 / count) for count in classes]


def trained_at(lines: Lines) -> list[Rule]:
    """Return the size of training, or the span of mixed ones, if all lines share it."""
    found = {row.train_resolutions or (row.train_resolution,) for row in rows_of(lines)}
    sizes = [size for size in found.pop() if size] if len(found) == 1 else []
    if not sizes:
        return []
    return [Rule("trained at", x=min(sizes), to=max(sizes) if len(sizes) > 1 else None)]
