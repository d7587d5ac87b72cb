"""Tables of dispersion: a row a curve, a column an n or a resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from semabench.results.dispersion_summary import Curve
from semabench.results.text_table import TextTable

Cell = Callable[[Curve, int], str]

NOTES = (
    "n: tokens of the grid. Weights are those of a sample of queries; numbers are means over "
    "queries, heads, layers of a stage, pictures or seeds, but for the largest of any query"
)


def dispersion_tables(curves: Sequence[Curve]) -> list[TextTable]:
    """Return one table a number, of random inputs first; only those with something to show."""
    tables = []
    for random in (True, False):
        chosen = [curve for curve in curves if curve.random is random]
        where = "random inputs" if random else "pictures"
        for title, cell in _MEASURES:
            if title == _TOKENS and random:
                continue  # they are the columns
            table = _table(f"{title}, {where}", chosen, cell, random)
            if any(any(row[1:]) for row in table.rows):
                tables.append(table)
    return tables


def _table(title: str, curves: Sequence[Curve], cell: Cell, random: bool) -> TextTable:
    columns = sorted({resolution for curve in curves for resolution in curve.points})
    rows = []
    for curve in curves:
        cells = [cell(curve, r) if r in curve.points else "" for r in columns]
        if any(cells):
            rows.append([curve.title, *cells])
    names = [f"n {r * r:,}" if random else f"{r} px" for r in columns]
    return TextTable(title, ["", *names], rows)


def number(value: float) -> str:
    """Return two significant figures, or one of a small number, in at most six characters.

    >>> [number(v) for v in (7.6e-4, 0.0123, 0.123, 1.234, 12.3, 1234.0, 4.3e17, 0.0)]
    ['8e-4', '0.012', '0.12', '1.2', '12', '1,234', '4e17', '0']
    """
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-3 <= size < 99_999.5:
        return _short(value)
    if size < 0.0995:
        return f"{value:.{1 if size < 0.00995 else 2}g}"
    return f"{value:,.{2 if size < 0.995 else 1 if size < 9.95 else 0}f}"


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _mean(field: str) -> Cell:
    def cell(curve: Curve, resolution: int) -> str:
        spread = curve.spread(resolution, field)
        return "" if spread is None else number(spread.mean)

    return cell


def _bound(curve: Curve, resolution: int) -> str:
    highest = curve.spread(resolution, "n_max_weight_highest")
    bound = curve.spread(resolution, "weight_bound")
    if highest is None:
        return ""
    if bound is None:
        return f"{number(highest.high)} (none)"
    limit = number(bound.high) if bound.high < 999.5 else _short(bound.high)
    return f"{number(highest.high)} ({limit})"


def _weight_sum(curve: Curve, resolution: int) -> str:
    """Return Σ α where it is not one."""
    values = [curve.spread(r, "weight_sum") for r in curve.points]
    if all(s is None or max(abs(s.low - 1), abs(s.high - 1)) < 1e-3 for s in values):
        return ""
    return _mean("weight_sum")(curve, resolution)


def _tokens(curve: Curve, resolution: int) -> str:
    return f"{curve.tokens(resolution):,}"


_TOKENS = "Tokens n"
_MEASURES: tuple[tuple[str, Cell], ...] = (
    (_TOKENS, _tokens),
    ("n · largest weight", _mean("n_max_weight")),
    ("n · largest weight of any query (bound)", _bound),
    ("Entropy / log n", _mean("entropy_ratio")),
    ("Effective number of keys", _mean("effective_keys")),
    ("‖attention − mean(V)‖ / ‖mean(V)‖", _mean("mean_distance")),
    ("‖full softmax − mean(V)‖ / ‖mean(V)‖", _mean("softmax_distance")),
    ("Sum of weights, where it is not 1", _weight_sum),
)
