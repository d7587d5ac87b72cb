"""How dispersion is shown: against the number of keys, on random inputs and in trained models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from semabench.results.csv_file import rows_csv
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
)
from semabench.results.view import Column, Figure, Panel, Rule, Table, View, one_figure, two_figures

RANDOM = "random"  # the dataset of random inputs

_NOTE = (
    "n: tokens of the grid. Weights are those of a sample of queries; numbers are means over "
    "queries, heads, layers of a stage, images or seeds, but for the largest of any query"
)


def stage_of(layer: str) -> str:
    """Return a layer's stage, as ``stage 1``: blocks of a stage see the same grid.

    >>> stage_of("stages.0.blocks.1.mixer"), stage_of("blocks.3.attn")
    ('stage 1', '')
    """
    found = re.match(r"(?:stages|layers)\.(\d+)\.", layer)
    return f"stage {int(found[1]) + 1}" if found else ""


def _training(row: Record) -> str:
    """Return what trainings share that differ by their seed alone; else which weights they are."""
    if row.config and row.seed is not None:
        return f"{row.config[:7]} after {row.epochs} epochs"
    return row.checkpoint[:7]


_SHEETS = {True: Sheet("random", "random inputs"), False: Sheet("images", "images")}

SERIES = Series(
    always=(),
    apart=(
        *("mixer", "options", "training", "weights", "dataset", "inputs"),
        *("n", "queries", "precision", "device", "layout", "stage"),
    ),
    derived={
        "training": _training,
        "inputs": lambda row: row.inputs if row.dataset == RANDOM else row.fingerprint[:7],
        "queries": lambda row: "" if row.dataset == RANDOM else row.queries,  # grids may be small
        "stage": lambda row: stage_of(row.layer),
    },
    averaged=("seed", "layer", "head"),
    newest="checkpoint",
    sheet=lambda row: _SHEETS[row.dataset == RANDOM],
    order=lambda row: row.dataset != RANDOM,
    ranged=True,
)


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for each kernel on random inputs, and each stage of a trained model."""
    found = []
    for line in group(records, SERIES):
        stage = stage_of(line.first.layer)
        told = stage and stage not in line.name.split(", ")
        found.append(replace(line, name=f"{line.name}, {stage}") if told else line)
    return found


def first_stages(lines: Sequence[Line]) -> list[Line]:
    """Return of several models the first stage of each, which has the most tokens; else all."""
    first: dict[object, Line] = {}
    for line in lines:
        first.setdefault((line.sheet, line.key[:-1]), line)
    sheets = [line.sheet for line in first.values()]
    kept = [id(line) for line in first.values()]
    return [line for line in lines if sheets.count(line.sheet) == 1 or id(line) in kept]


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what all rows share, and what the numbers are."""
    return [describe_shared(rows_of(lines), ("precision", "device", "versions")), _NOTE]


def _captions(lines: Sequence[Line]) -> list[str]:
    rows = rows_of(lines)
    queries = f"{max(row.queries or 0 for row in rows)} queries"
    if lines[0].sheet == _SHEETS[True]:
        inputs = {row.inputs for row in rows}
        what = inputs.pop() if len(inputs) == 1 else "random inputs"
        seeds = len({row.seed for row in rows})
        return [f"{what}, {queries}, {seeds} seed{'s'[: seeds - 1]}"]
    images = max(row.n for row in rows)
    datasets = "+".join(sorted({row.dataset for row in rows}))
    stages = ", first stage of each model" if len({line.key[:-1] for line in lines}) > 1 else ""
    return [f"{datasets}, {images} images, {queries} each{stages}"]


def _short(value: Estimate) -> str:
    return two_figures(value.mean)


def _bound(line: Line, place: Place) -> str:
    """Return the largest weight of any query, and what it cannot be above."""
    highest = line.estimate(place, "n_max_weight_highest")
    bound = line.estimate(place, "weight_bound")
    if highest is None:
        return ""
    if bound is None:
        return f"{two_figures(highest.high)} (none)"
    limit = two_figures(bound.high) if bound.high < 999.5 else one_figure(bound.high)
    return f"{two_figures(highest.high)} ({limit})"


def _weight_sum(line: Line, place: Place) -> str:
    """Return Σ α of lines where it is not one."""
    values = [line.estimate(other, "weight_sum") for other in line.points]
    if all(s is None or max(abs(s.low - 1), abs(s.high - 1)) < 1e-3 for s in values):
        return ""
    value = line.estimate(place, "weight_sum")
    return "" if value is None else two_figures(value.mean)


def _tokens(line: Line, place: Place) -> str:
    """Return n of images; on random inputs it is the column."""
    value = line.estimate(place, "tokens")
    return "" if value is None or line.sheet == _SHEETS[True] else f"{value.mean:,.0f}"


def _column(line: Line, place: Place) -> tuple[tuple[int, ...], str]:
    size = place[0]
    return place, f"n {size * size:,}" if line.sheet == _SHEETS[True] else f"{size} px"


def _table(title: str, quantity: str, cell: Callable[[Line, Place], str] | None = None) -> Table:
    names = [Column("", lambda line: line.name)]
    return Table(title, quantity, _short, cell=cell, column=_column, columns=lambda _: names)


def _level(_: Sequence[Line]) -> list[Rule]:
    return [Rule("all keys weigh the same", y=1)]


VIEW = View(
    measure="dispersion",
    title="Dispersion",
    about="How the weights of attention spread as the number of tokens n grows: means over a "
    "sample of queries, then over heads, layers of a stage, images or seeds.",
    lines=lines,
    tables=(
        _table("Tokens n", "tokens", _tokens),
        _table("n · largest weight", "n_max_weight"),
        _table("n · largest weight of any query (bound)", "n_max_weight_highest", _bound),
        _table("Entropy / log n", "entropy_ratio"),
        _table("Effective number of keys", "effective_keys"),
        _table("‖attention − mean(V)‖ / ‖mean(V)‖", "mean_distance"),
        _table("‖full softmax − mean(V)‖ / ‖mean(V)‖", "softmax_distance"),
        _table("Sum of weights, where it is not 1", "weight_sum", _weight_sum),
    ),
    figures=(
        Figure(
            "dispersion",
            "tokens",
            (
                Panel(
                    "n_max_weight",
                    "Flat: attention disperses, every weight falling as 1/n; 1 is a plain mean. "
                    "Rising in proportion to n: it keeps its focus.",
                    rules=_level,
                ),
                Panel(
                    "entropy_ratio",
                    "1 means that all n keys weigh the same; lower is more focused.",
                    limits=(0, 1.08),
                    rules=_level,
                ),
                Panel(
                    "effective_keys",
                    "How many equal weights would have this entropy. Proportional to n: "
                    "dispersed. Flat: as many keys as before, whatever the size.",
                    note=lambda _: "dashed: all n keys",
                    rules=lambda _: [Rule(diagonal=True)],
                ),
                Panel(
                    "mean_distance",
                    "How far the output is from the plain mean of the values; falling towards 0, "
                    "attention is the mean.",
                    title="Attention against mean(V)",
                    note=lambda _: "0: the output is mean(V)",
                ),
                Panel(
                    "softmax_distance",
                    "The same for softmax over all tokens with the model's own queries and keys, "
                    "also where the model has windows: low is where SEMA's mean stands for full "
                    "attention.",
                    title="Full softmax against mean(V)",
                    note=lambda _: "softmax over all n tokens, also where the model has windows",
                ),
                Panel(
                    "weight_sum",
                    "1 for every kernel but MILA's, whose rotation is left out of the denominator.",
                    note=lambda _: "1 but with MILA's rotation",
                    limits=(0, 1.08),
                    rules=lambda _: [Rule(y=1)],
                ),
            ),
            title=lambda lines: f"Dispersion against the number of tokens, {lines[0].sheet.title}",
            captions=_captions,
            room=first_stages,
        ),
    ),
    notes=notes,
    csv=(("dispersion.csv", rows_csv),),
)
