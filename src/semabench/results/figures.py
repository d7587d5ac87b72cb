"""What plots and the page draw: the charts that a view's figures describe, and styles of lines.

A mixer has one colour in every figure. No two lines of a figure differ by colour alone: who tells
colours badly has markers and dashes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from semabench.results.summary import Estimate, Line, Place, Sheet, describe_errors
from semabench.results.view import QUANTITIES, Figure, Panel, Rule, estimate


@dataclass(frozen=True)
class Point:
    """One line's numbers at one place."""

    place: Place
    x: float
    y: Estimate


@dataclass(frozen=True)
class Curve:
    """What is drawn of a line."""

    line: Line
    points: list[Point]

    @property
    def band(self) -> bool:
        """Whether errors are over seeds everywhere, and make an area; else they are bars."""
        return len(self.points) > 1 and all(point.y.of == "seeds" for point in self.points)


@dataclass(frozen=True)
class Chart:
    """One quantity against another: a figure of the page, a panel of a file."""

    figure: Figure
    panel: Panel
    sheet: Sheet
    name: str
    curves: list[Curve]

    @property
    def lines(self) -> list[Line]:
        """What it shows."""
        return [curve.line for curve in self.curves]

    @property
    def title(self) -> str:
        """As ``Top-1 accuracy against resolution: needle, trained at 96 px``."""
        x = QUANTITIES[self.figure.x].name
        lower = x if x[1].isupper() else x[:1].lower() + x[1:]
        where = ", ".join(filter(None, (self.name, self.sheet.title)))
        return f"{QUANTITIES[self.panel.y].name} against {lower}" + (f": {where}" if where else "")

    @property
    def rules(self) -> list[Rule]:
        """What to compare with; sizes of images only where they are x."""
        rules = self.panel.rules(self.lines)
        return [rule for rule in rules if rule.x is None or QUANTITIES[self.figure.x].discrete]

    @property
    def errors(self) -> str:
        """What bands and bars are, in one sentence."""
        points = [point.y for curve in self.curves for point in curve.points]
        several = [c.band for c in self.curves if any(point.y.of == "seeds" for point in c.points)]
        marks = "Bands:" if all(several) else "Bands and bars:" if any(several) else "Bars:"
        return describe_errors(points, marks, "Bars:")


def charts(figure: Figure, lines: Sequence[Line], plot: bool = False) -> list[Chart]:
    """Return the charts that there is more than one point of, sheet by sheet, of a measure's lines.

    For a ``plot`` those that its files have room for, and none that is the page's alone.
    """
    drawn = figure.lines(lines)
    if plot:
        drawn = figure.room(drawn)
    found = []
    for sheet in dict.fromkeys(line.sheet for line in drawn):
        of_sheet = [line for line in drawn if line.sheet == sheet]
        for panel in figure.panels:
            if plot and not panel.plot:
                continue
            for name in dict.fromkeys(line.panel for line in of_sheet):
                of_panel = [line for line in of_sheet if line.panel == name]
                curves = [Curve(line, _points(line, figure.x, panel.y)) for line in of_panel]
                curves = [curve for curve in curves if curve.points]
                places = {point.x for curve in curves for point in curve.points}
                if len(places) > 1 and panel.shown(of_panel):
                    found.append(Chart(figure, panel, sheet, name, curves))
    return found


def _points(line: Line, x_name: str, y_name: str) -> list[Point]:
    points = []
    for place in line.points:
        x, y = estimate(line, place, x_name), estimate(line, place, y_name)
        # What is zero up to rounding is no point of a logarithmic axis.
        if x and y and (y.mean > 1e-6 or not QUANTITIES[y_name].log):
            points.append(Point(place, x.mean, y))
    return points


#: On white and on the dark page. Okabe and Ito's palette without yellow, which is too faint on
#: white: told apart with every common form of colour blindness. Brown, purple, wine, and the
#: controls' ink and grey, make eleven of six; lines differ by marker and dash, too.
COLOURS: tuple[tuple[str, str], ...] = (
    ("#0072B2", "#3F9FE0"),
    ("#D55E00", "#F2803A"),
    ("#009E73", "#22C08F"),
    ("#CC79A7", "#E29CC2"),
    ("#56B4E9", "#9AD8FB"),
    ("#E69F00", "#F0B840"),
    ("#7B4B1E", "#B58A63"),
    ("#5D3A9B", "#A68BDB"),
    ("#8C1D40", "#D9657F"),
    ("#000000", "#FFFFFF"),
    ("#8A8A8A", "#8A9096"),
)
#: Of matplotlib; the page's script and style have the same in the same order.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


@dataclass(frozen=True)
class Style:
    """Places in ``COLOURS``, ``MARKERS`` and ``DASHES``."""

    colour: int
    marker: int
    dash: int

    def keywords(self) -> dict[str, Any]:
        """Return it as matplotlib's keywords."""
        return {
            "color": COLOURS[self.colour][0],
            "marker": MARKERS[self.marker],
            "linestyle": DASHES[self.dash],
        }


_MIXERS = {
    "sema": Style(0, 0, 0),
    "softmax": Style(1, 1, 0),
    "linear": Style(2, 2, 0),
    "mila": Style(3, 3, 0),
    "window": Style(4, 4, 0),
    "ssm": Style(5, 5, 0),
    "focused": Style(6, 6, 0),
    "mean": Style(9, 0, 1),
    "none": Style(10, 1, 2),
    "rala": Style(7, 4, 2),
    "ssd": Style(8, 3, 2),
}
#: Models with a mixer of their own, by how their names begin: the colour of the mixer that is most
#: like it, grey for convolutions alone.
_MODELS = {
    "deit": Style(1, 6, 1),
    "vit": Style(1, 5, 1),
    "efficientvit": Style(2, 0, 1),
    "efficientvim": Style(5, 2, 1),
    "vim": Style(5, 1, 1),
    "swin": Style(4, 3, 1),
    "convnext": Style(10, 4, 1),
    "mambaout": Style(10, 5, 1),
    "resnet": Style(10, 6, 1),
}


def style_of(mixer: str) -> Style:
    """Return the style of a mixer, or of a model that names none; of an unknown one by its name."""
    if mixer in _MIXERS:
        return _MIXERS[mixer]
    for family, style in _MODELS.items():
        if mixer.startswith(family):
            return style
    number = zlib.crc32(mixer.encode())
    # Dashed, and neither ink nor grey, which are the controls'.
    return Style(number % (len(COLOURS) - 2), number // 7 % len(MARKERS), 1)


def styles(lines: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Style]:
    """Return the style of each line of a figure, or of a page, given as (mixer, name of the line).

    The first of a mixer has the mixer's own, and the others its colour with the next marker
    and dash that are free: 21 lines of a colour differ.
    """
    asked = dict.fromkeys(lines)
    found: dict[tuple[str, str], Style] = {}
    # Our mixers first: a model that happens to get their colour gives way.
    for line in sorted(asked, key=lambda line: line[0] not in _MIXERS):
        home = style_of(line[0])
        steps = range(len(MARKERS) * len(DASHES))
        looks = [((home.marker + k) % len(MARKERS), (home.dash + k) % len(DASHES)) for k in steps]
        ways = [Style(home.colour, marker, dash) for marker, dash in looks]
        taken = set(found.values())
        found[line] = next((way for way in ways if way not in taken), home)
    return {line: found[line] for line in asked}


def style_sheet() -> str:
    """Return the colours for the page: ``.c0`` and so on know theirs in light and in dark."""
    pairs = enumerate(COLOURS)
    return "".join(f".c{k} {{ --light: {light}; --dark: {dark}; }}\n" for k, (light, dark) in pairs)
