"""A family of rows on the page: which rows, how they become lines, which figures show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semabench.results.page.quantity import Value
from semabench.results.record import Record

if TYPE_CHECKING:
    from semabench.results.page.tables import Table


@dataclass(frozen=True)
class Point:
    """One line's numbers at one place.

    Attributes:
        values: by field, as far as they are known.
        facts: what a reader may ask about the point: its resolution, n, batch, as text.
    """

    values: dict[str, Value]
    facts: dict[str, str]


@dataclass(frozen=True)
class Line:
    """A model with its mixer, set up in one way.

    Attributes:
        name: what tells it from the others of its family.
        panel: the small multiple that it is drawn in; empty where there is one only.
        points: in the order in which they are joined.
        records: the rows behind it.
    """

    name: str
    model: str
    mixer: str
    panel: str
    points: tuple[Point, ...]
    records: tuple[Record, ...]

    @property
    def mixer_or_model(self) -> str:
        """Return the mixer; of a model that names none, the model."""
        return self.mixer or self.model


Lines = Callable[[Sequence[Record], Sequence[str]], list[Line]]
"""Groups rows into lines, and takes the named fields' values from them."""


@dataclass(frozen=True)
class Figure:
    """One quantity against another, once for each panel, and the table of the same numbers.

    Attributes:
        x, y: keys of `quantity.QUANTITIES`.
        read: how to read it: one or two sentences.
        table: whether y is tabulated, a column for each x.
        plot: whether it is drawn.
    """

    x: str
    y: str
    read: str = ""
    table: bool = True
    plot: bool = True


@dataclass(frozen=True)
class Family:
    """All that the page knows about the rows of one ``measure``.

    Attributes:
        figures: each with the table of its numbers.
        more: tables of what is worked out from the rows, below those.
    """

    measure: str
    title: str
    about: str
    lines: Lines
    figures: tuple[Figure, ...]
    more: Callable[[Sequence[Record]], list[Table]] | None = None
