"""How cost is shown: speed, memory and energy against resolution, exponents and crossovers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby, pairwise

from semabench.evaluation.cost.schema import EXECUTIONS
from semabench.results.csv_file import rows_csv, timm_benchmark_csv
from semabench.results.record import Record
from semabench.results.summary import (
    Estimate,
    Line,
    Place,
    Series,
    Sheet,
    describe_shared,
    group,
    rows_of,
    span,
)
from semabench.results.text_table import Cell, Grid, Row
from semabench.results.view import (
    POWER_LAW,
    Column,
    Figure,
    Panel,
    Table,
    View,
    estimate,
    millions,
    with_spread,
)

MIN_POINTS = 3


@dataclass(frozen=True)
class PowerLaw:
    """cost ∝ tokens^k."""

    exponent: float  # k
    stderr: float  # its standard error, from the residuals; it shows a bend as well as noise
    points: int  # resolutions behind it


@dataclass(frozen=True)
class Crossover:
    """Where the curves of two models cross."""

    resolution: float  # in pixels, between two measured ones
    below: int  # below, above: which of the two, 0 or 1, costs less on that side
    above: int
    clear: bool  # at both neighbours they differ by more than their spreads together


@dataclass(frozen=True)
class Point:
    """A positive cost with its spread, half the interquartile range; 0 where it is unknown."""

    cost: float
    spread: float = 0.0


def tokens(resolution: int) -> float:
    """Return the tokens of a square image in patches of 16 pixels.

    Another patch size multiplies all of them by one factor, which no exponent sees.
    """
    return (resolution / 16) ** 2


def fit_power_law(costs: Mapping[int, float]) -> PowerLaw | None:
    """Fit log cost = k·log tokens + c by least squares to positive costs by resolution.

    None with fewer than three resolutions, which cannot tell how well it fits.
    """
    if len(costs) < MIN_POINTS:
        return None
    x = [math.log(tokens(resolution)) for resolution in costs]
    y = [math.log(cost) for cost in costs.values()]
    count = len(x)
    mean_x, mean_y = math.fsum(x) / count, math.fsum(y) / count
    pairs = list(zip(x, y, strict=True))
    sxx = math.fsum((a - mean_x) ** 2 for a in x)
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in pairs) / sxx
    residual = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in pairs)
    return PowerLaw(slope, math.sqrt(residual / (count - 2) / sxx), count)


def crossovers(first: Mapping[int, Point], second: Mapping[int, Point]) -> list[Crossover]:
    """Find where two cost curves cross, within the resolutions that both were measured at.

    Between neighbours the curves are straight in the logarithms of cost and tokens. Nothing is
    extrapolated: curves that do not change places between measured points do not cross.
    """
    shared = sorted(first.keys() & second.keys())
    gaps = {r: math.log(first[r].cost) - math.log(second[r].cost) for r in shared}
    # Points of equal cost belong to the crossing, if there is one, that goes through them.
    apart = [(r, gap) for r, gap in gaps.items() if gap != 0]
    found = []
    for (low, gap_low), (high, gap_high) in pairwise(apart):
        if gap_low * gap_high > 0:
            continue
        share = gap_low / (gap_low - gap_high)
        resolution = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        ends = [(first[r], second[r]) for r in (low, high)]
        clear = all(abs(a.cost - b.cost) > a.spread + b.spread for a, b in ends)
        found.append(Crossover(resolution, *((0, 1) if gap_low < 0 else (1, 0)), clear))
    return found


def common_batch(batches: Mapping[int, Sequence[int]]) -> int | None:
    """Return the largest batch size that all resolutions share; None where they share none."""
    shared = set.intersection(*map(set, batches.values())) if batches else set()
    return max(shared, default=None)


def _sheet(row: Record) -> Sheet:
    step = "training step" if row.mode == "train" else "inference"
    return Sheet(f"{row.mode}-{row.execution}", f"{step}, {row.execution}")


SERIES = Series(
    always=(),
    apart=("mixer", "options", "backend", "layout", "precision", "device", "versions"),
    averaged=(),
    place=(lambda row: row.resolution, lambda row: row.asked_batch_size or row.batch_size or 0),
    sheet=_sheet,
    order=lambda row: (row.mode != "train", (*EXECUTIONS, row.execution).index(row.execution)),
    own="windows",
)


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for each model, set up in one way, in each mode and execution."""
    return group(records, SERIES)


def one_batch(lines: Sequence[Line]) -> list[Line]:
    """Return lines with one batch size for all resolutions; else with the largest of each.

    Without a speed there is no point, and without a point no line.
    """
    found = []
    for line in lines:
        sizes: dict[int, list[int]] = {}
        for place in line.points:
            if _row(line, place).images_per_second:
                sizes.setdefault(place[0], []).append(place[1])
        if sizes:
            common = common_batch(sizes)
            places = [(size, common or max(batches)) for size, batches in sizes.items()]
            found.append(replace(line, points={place: line.points[place] for place in places}))
    return found


def exponents(line: Line) -> tuple[PowerLaw | None, PowerLaw | None]:
    """Return how time per image and peak memory grow: None where that cannot be told.

    Args:
        line: of `one_batch`. Memory compares at one batch size alone; on a CPU it is the
            process's, most of which is not the model's.
    """
    rows = [_row(line, place) for place in line.points]
    times = {size: point.cost for size, point in _times(line).items()}
    peaks = {row.resolution: row.peak_memory_mib for row in rows if row.peak_memory_mib}
    comparable = not _batches_differ([line]) and rows[0].device != "cpu"
    return fit_power_law(times), fit_power_law(peaks) if comparable else None


def crossings(lines: Sequence[Line]) -> list[tuple[Line, Line, Crossover]]:
    """Return where the time per image of two lines crosses, at equal batch sizes.

    Args:
        lines: of `one_batch`, of one mode and execution.

    Returns:
        The line that is cheaper below, the one that is cheaper above, and where.
    """
    found = []
    for pair in combinations(lines, 2):
        batches = [{p[0]: _row(line, p).batch_size for p in line.points} for line in pair]
        same = [size for size in batches[0] if batches[0][size] == batches[1].get(size)]
        costs = [{size: _times(line)[size] for size in same} for line in pair]
        for crossover in crossovers(*costs):
            found.append((pair[crossover.below], pair[crossover.above], crossover))
    return found


def _row(line: Line, place: Place) -> Record:
    return line.points[place][0]


def _times(line: Line) -> dict[int, Point]:
    """Return milliseconds an image by resolution, with their spread."""
    times = {}
    for place in line.points:
        row = _row(line, place)
        assert row.images_per_second is not None
        relative = (row.images_per_second_spread or 0) / row.images_per_second
        times[place[0]] = Point(1e3 / row.images_per_second, relative * 1e3 / row.images_per_second)
    return times


def growth(lines: Sequence[Line]) -> list[Grid]:
    """Return the exponents k of cost ∝ tokens^k, and where lines cross; only what there is."""
    fits, crossed = [], []
    for _, group_ in groupby(one_batch(lines), key=lambda line: line.sheet):
        found = list(group_)
        for line in found:
            time, memory = exponents(line)
            if time is not None:
                sizes = [_row(line, place).batch_size or 0 for place in line.points]
                batches = "/".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))
                cells = [*_words(line.name, *_how(line), batches), _law(time), _law(memory)]
                fits.append(Row(line.first.model, line.mixer, cells))
        for below, above, crossover in crossings(found):
            note = "" if crossover.clear else "within the spread"
            where = Cell(f"{crossover.resolution:.0f}", crossover.resolution)
            cells = [*_words(below.name, above.name, *_how(below), note), where]
            crossed.append(Row(below.first.model, below.mixer, cells))
    header = ["model", "mode", "execution", "batch", "k, time", "k, memory"]
    tables = [Grid("Cost of an image ∝ tokens^k", header, fits, words=4)] if fits else []
    if crossed:
        header = ["cheaper below", "cheaper above", "mode", "execution", "note", "crossing, px"]
        tables.append(Grid("Where time per image crosses", header, crossed, words=5))
    return tables


def _how(line: Line) -> tuple[str, str]:
    return line.first.mode, line.first.execution


def _words(*texts: str) -> list[Cell]:
    return [Cell(text, text) for text in texts]


def _law(law: PowerLaw | None) -> Cell:
    return Cell("") if law is None else Cell(f"{law.exponent:.2f} ±{law.stderr:.2f}", law.exponent)


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what all rows share, and what the numbers are."""
    rows = rows_of(lines)
    windows = span(row.rounds for row in rows if row.rounds)
    said = [
        describe_shared(rows, ("precision", "device", "versions")),
        f"Medians of {windows} timed windows, models in turn; ± is half the interquartile range",
    ]
    if any(row.asked_batch_size for row in rows):
        said.append("(b N): memory ran out, and the batch was halved to N")
    return said


def _captions(lines: Sequence[Line]) -> list[str]:
    rows = rows_of(lines)
    shared = describe_shared(rows, ("precision", "device"))
    windows = span(row.rounds for row in rows if row.rounds)
    return [f"{shared}, {_batches(lines)}, medians of {windows} windows"]


def _batches(lines: Sequence[Line]) -> str:
    sizes: dict[int, set[int]] = {}
    for row in rows_of(lines):
        sizes.setdefault(row.resolution, set()).add(row.batch_size or 0)
    if not _batches_differ(lines):
        return f"batch {min(set.union(*sizes.values()))}"
    each = ", ".join(f"{'/'.join(map(str, sorted(sizes[r])))} at {r}" for r in sorted(sizes))
    return f"batch {each} px"


def _batches_differ(lines: Sequence[Line]) -> bool:
    return len({row.batch_size for row in rows_of(lines)}) > 1


def _held(lines: Sequence[Line]) -> str:
    first = lines[0].first
    if first.device == "cpu":
        return "of the whole process, libraries included"
    training = "weights, gradients, optimiser, activations"
    return training if first.mode == "train" else "weights, activations"


_NAME = Column("model", lambda line: line.name)


def _plain(value: Estimate) -> str:
    return f"{value.mean:.1f}"


def _table(
    title: str,
    quantity: str,
    form: Callable[[Estimate], str] = with_spread,
    brief: bool = True,
) -> Table:
    """Return a table with a column for each mode, resolution and batch."""

    def cell(line: Line, place: Place) -> str:
        row, value = _row(line, place), estimate(line, place, quantity)
        shrunk = "" if row.asked_batch_size is None else f" (b {row.batch_size})"
        return "" if value is None else form(value) + shrunk

    def column(line: Line, place: Place) -> tuple[tuple[bool, int, int], str]:
        mode, (size, batch) = line.first.mode, place
        return (mode != "train", size, batch), f"{mode}\n{size} px\nbatch {batch}"

    columns = [_NAME, Column("backend", lambda line: line.first.backend)]
    return Table(
        title,
        quantity,
        form,
        cell=cell,
        column=column,
        columns=lambda _: columns,
        split=lambda line: line.first.execution,
        brief=brief,
    )


VIEW = View(
    measure="cost",
    title="Cost",
    about="Random images, weights at random: medians over timed windows, the models in turn, each "
    "in a process of its own. Figures show the largest batch that all resolutions share, or the "
    "largest of each; tables show all.",
    lines=lines,
    tables=(
        _table("Images per second", "images_per_second"),
        _table("Milliseconds a batch", "latency_ms", brief=False),
        _table("GPU at work, ms a batch", "busy_ms", _plain, brief=False),
        _table("Host launching, ms a batch", "launch_ms", _plain, brief=False),
        _table("Peak memory (MiB)", "peak_memory_mib", lambda value: f"{value.mean:,.0f}"),
        _table("Joules per image", "joules_per_image", brief=False),
        Table(
            "GMACs of one image's forward pass",
            "gmacs",
            lambda value: f"{value.mean:.2f}",
            column=lambda _, place: (place[:1], f"{place[0]} px"),
            columns=lambda _: [_NAME, Column("params M", millions, True)],
            split=lambda _: "",
            brief=False,
        ),
    ),
    figures=(
        Figure(
            "cost",
            "resolution",
            (
                Panel("images_per_second", f"Higher is better. {POWER_LAW}"),
                Panel(
                    "peak_memory_mib",
                    "Lower is better, and only comparable at equal batch sizes. On a GPU the "
                    "model's own allocations, on a CPU the whole process.",
                    note=_held,
                ),
                Panel(
                    "memory_per_image",
                    "Lower is better. Batches differ, so this is the peak divided by the images "
                    "of a batch; weights count once a batch, so small batches look dear.",
                    note=lambda _: "the peak divided by the batch, weights included",
                    shown=_batches_differ,
                ),
                Panel(
                    "latency_ms",
                    "Lower is better. Time of one whole batch: compare models at equal batch "
                    "sizes, which the points tell.",
                    plot=False,
                ),
                Panel(
                    "joules_per_image",
                    "Lower is better. Energy of the whole device, idle power included.",
                    plot=False,
                ),
            ),
            title=lambda lines: f"Cost against resolution, {lines[0].sheet.title}",
            captions=_captions,
            lines=one_batch,
        ),
    ),
    notes=notes,
    csv=(("cost.csv", rows_csv), ("timm-benchmark.csv", timm_benchmark_csv)),
    more=growth,
)
