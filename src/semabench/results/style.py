"""Styles of lines: a mixer has one colour in every figure, in plots and on the page.

No two lines of a figure differ by colour alone: who tells colours badly has markers and dashes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: On white and on the dark page. Okabe and Ito's palette without yellow, which is too faint on
#: white: told apart with every common form of colour blindness. Brown, and the controls' ink and
#: grey, make nine of seven.
COLOURS: tuple[tuple[str, str], ...] = (
    ("#0072B2", "#3F9FE0"),
    ("#D55E00", "#F2803A"),
    ("#009E73", "#22C08F"),
    ("#CC79A7", "#E29CC2"),
    ("#56B4E9", "#9AD8FB"),
    ("#E69F00", "#F0B840"),
    ("#7B4B1E", "#B58A63"),
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
    "mean": Style(7, 0, 1),
    "none": Style(8, 1, 2),
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
    "convnext": Style(8, 4, 1),
    "mambaout": Style(8, 5, 1),
    "resnet": Style(8, 6, 1),
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
        ways = [
            Style(
                home.colour, (home.marker + step) % len(MARKERS), (home.dash + step) % len(DASHES)
            )
            for step in range(len(MARKERS) * len(DASHES))
        ]
        taken = set(found.values())
        found[line] = next((way for way in ways if way not in taken), home)
    return {line: found[line] for line in asked}


def style_sheet() -> str:
    """Return the colours for the page: ``.c0`` and so on know theirs in light and in dark."""
    rules = (
        f".c{place} {{ --light: {light}; --dark: {dark}; }}"
        for place, (light, dark) in enumerate(COLOURS)
    )
    return "\n".join(rules) + "\n"
