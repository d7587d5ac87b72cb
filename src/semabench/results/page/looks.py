"""How lines look: a colour a mixer, all over the page; dashes for the models that share it."""

from __future__ import annotations

from collections.abc import Iterable

from semabench.results.page.family import Line

COLOURS, MARKERS, DASHES = 7, 7, 3


def looks(lines: Iterable[Line]) -> dict[tuple[str, str], dict[str, int]]:
    """Return colour, marker and dash by (mixer, name of the line), in the order first met.

    The colours are those of the plots (Okabe and Ito's without yellow). From the eighth mixer on
    they are used again, with other markers and dashes: no two lines differ by colour alone.
    """
    mixers: dict[str, dict[str, None]] = {}
    for line in lines:
        mixers.setdefault(mixer_of(line), {}).setdefault(line.name)
    found = {}
    for place, (mixer, names) in enumerate(mixers.items()):
        round_, colour = divmod(place, COLOURS)
        for order, name in enumerate(names):
            found[mixer, name] = {
                "colour": colour,
                "marker": (colour + round_ + order) % MARKERS,
                "dash": (round_ + order) % DASHES,
            }
    return found


def mixer_of(line: Line) -> str:
    """Return the mixer; of a model of timm's, which names none, the model."""
    return line.mixer or line.model
