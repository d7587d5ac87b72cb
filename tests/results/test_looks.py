"""A mixer looks the same in every figure, whatever else is shown; no two lines look alike."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from helpers.page_rows import figures_of
from helpers.rows import row
from semabench.mixers import list_mixers
from semabench.results import cost_plot, cost_summary, dispersion_plot, plot, study_plot
from semabench.results.dispersion_summary import dispersion_curves
from semabench.results.looks import COLOURS, DASHES, MARKERS, look_of, looks
from semabench.results.page.write import write_page
from semabench.results.summary import summarise

NAMES = st.one_of(st.sampled_from(list_mixers()), st.text("abc", min_size=1, max_size=3))


def test_every_mixer_has_a_colour_of_its_own_and_more_than_that():
    own = [look_of(mixer) for mixer in list_mixers()]
    assert len({look.colour for look in own}) == len(own)
    assert len({(look.marker, look.dash) for look in own}) == len(own)  # in black and white, too


@given(st.lists(st.tuples(NAMES, st.text("xy", max_size=1)), unique=True, max_size=20))
def test_the_colour_is_the_mixers_in_any_company_and_looks_differ(lines):
    found = looks(lines)
    assert list(found) == lines
    assert all(look.colour == look_of(mixer).colour for (mixer, _), look in found.items())
    assert len(set(found.values())) == len(lines)
    for look in found.values():
        assert look.colour < len(COLOURS)
        assert (look.marker < len(MARKERS), look.dash < len(DASHES)) == (True, True)
    ours = {mixer for mixer, _ in lines} & set(list_mixers())
    assert all(look_of(mixer) in found.values() for mixer in ours)  # nobody takes it from them


def test_plots_and_page_draw_a_mixer_in_the_same_colour(tmp_path, monkeypatch):
    drawn: dict[str, str] = {}
    figures: list[Figure] = []
    for module in (plot, cost_plot, dispersion_plot, study_plot):
        name = "save_figure" if module is plot else "save_with_legend"
        monkeypatch.setattr(module, name, lambda figure, *rest: figures.append(figure) or [])

    def colour() -> str:
        """Return softmax's in the figure drawn last."""
        axes = figures.pop().axes[0]
        handles, names = axes.get_legend_handles_labels()
        named = dict(zip(names, handles, strict=True))
        (handle,) = [handle for name, handle in named.items() if name.startswith("softmax")]
        line = handle[0] if hasattr(handle, "__getitem__") else handle
        return to_hex(line.get_color())

    rows = [row(f"{m}_nano", size, mixer=m) for m in ("mila", "softmax") for size in (64, 96)]
    plot.plot_accuracy(summarise(rows), tmp_path / "accuracy")
    drawn["accuracy"] = colour()
    cost = [replace(r, measure="cost", mode="infer", execution="eager") for r in rows]
    chosen = cost_summary.curves(cost_summary.subjects(cost), "infer", "eager")
    cost_plot.plot_cost(chosen, tmp_path / "cost")
    drawn["cost"] = colour()
    more = {"measure": "dispersion", "n_max_weight": 2.0}
    spread = [replace(r, tokens=r.resolution, **more) for r in rows]
    dispersion_plot.plot_dispersion(dispersion_curves(spread), [], tmp_path / "dispersion")
    drawn["dispersion"] = colour()
    figure = Figure()
    study_plot._curve(figure.subplots(), "softmax", {})
    figures.append(figure)
    drawn["study"] = colour()

    text = write_page(rows, tmp_path / "report.html").read_text()
    lines = [line for shown in figures_of(text).values() for line in shown["lines"]]
    (place,) = {line["colour"] for line in lines if line["mixer"] == "softmax"}
    drawn["page"] = re.search(rf"\.c{place} {{ --light: (#\w+);", text)[1].lower()
    assert set(drawn.values()) == {COLOURS[look_of("softmax").colour][0].lower()}, drawn
