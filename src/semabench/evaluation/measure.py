"""What a measure is: its config and checks, what measures, and how its rows are shown."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semabench.config.key import check_declared

if TYPE_CHECKING:
    from semabench.results.record import Record
    from semabench.results.view import View


@dataclass(frozen=True)
class Measure:
    """One kind of measurement; a package's ``MEASURE`` declares it.

    Attributes:
        name: that of ``measure=NAME``, and of the field ``measure`` of its rows.
        schema: the dataclass of its config.
        checks: raises a SemabenchError if keys do not fit together.
        runner, views: ``module:name`` of what measures, and of its description of tables and
            figures: imported when they are needed, as torch takes seconds.
    """

    name: str
    schema: type
    checks: Callable[[Any], None]
    runner: str
    views: str

    def check(self, config: Any) -> None:
        """Raise a SemabenchError that names the first key whose value cannot be used."""
        check_declared(config)
        self.checks(config)

    def run(self, config: Any) -> list[Record]:
        """Measure what is asked for and is not stored yet; return all rows asked for."""
        rows: list[Record] = pkgutil.resolve_name(self.runner)(config)
        return rows

    @property
    def view(self) -> View:
        """How its rows are shown."""
        view: View = pkgutil.resolve_name(self.views)
        return view
