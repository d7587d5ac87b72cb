"""The charts that a view's figures describe, made of its lines: what plots and the page draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """What is drawn of a line; ``band`` tells that errors are an area, not bars."""

    line: Line
    points: list[Point]

    @property
    def band(self) -> bool:
        """Whether errors are over seeds everywhere, and make an area."""
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
        several = [curve.band for curve in self.curves if any(_over_seeds(curve))]
        marks = "Bands:" if all(several) else "Bands and bars:" if any(several) else "Bars:"
        points = [point.y for curve in self.curves for point in curve.points]
        return describe_errors(points, marks, "Bars:")


def _over_seeds(curve: Curve) -> Iterator[bool]:
    return (point.y.of == "seeds" for point in curve.points)


def charts(figure: Figure, lines: Sequence[Line], plot: bool = False) -> list[Chart]:
    """Return the charts that there is more than one point of, sheet by sheet.

    Args:
        figure: as described.
        lines: all of its measure.
        plot: for its files: what these have room for, and none that is the page's alone.
    """
    drawn = figure.lines(lines)
    if plot:
        drawn = figure.room(drawn)
    found = []
    for sheet in dict.fromkeys(line.sheet for line in drawn):
        for panel in figure.panels:
            if plot and not panel.plot:
                continue
            of_sheet = [line for line in drawn if line.sheet == sheet]
            for name in dict.fromkeys(line.panel for line in of_sheet):
                of_panel = [line for line in of_sheet if line.panel == name]
                curves = [
                    curve for line in of_panel if (curve := _curve(line, figure, panel)).points
                ]
                places = {point.x for curve in curves for point in curve.points}
                if len(places) > 1 and panel.shown(of_panel):
                    found.append(Chart(figure, panel, sheet, name, curves))
    return found


def _curve(line: Line, figure: Figure, panel: Panel) -> Curve:
    points = []
    for place in line.points:
        x, y = estimate(line, place, figure.x), estimate(line, place, panel.y)
        # What is zero up to rounding is no point of a logarithmic axis.
        if x and y and (y.mean > 1e-6 or not QUANTITIES[panel.y].log):
            points.append(Point(place, x.mean, y))
    return Curve(line, points)
