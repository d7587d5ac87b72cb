"""A mixer looks the same in every figure, whatever else is shown; no two lines look alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from helpers.page_rows import VIEWS, cost, figures_of, random_row, study_row
from helpers.rows import row
from semabench.mixers import list_mixers
from semabench.results import plot
from semabench.results.figures import COLOURS, DASHES, MARKERS, style_of, styles
from semabench.results.page import write_page

NAMES = st.one_of(st.sampled_from(list_mixers()), st.text("abc", min_size=1, max_size=3))


def test_every_mixer_has_a_colour_of_its_own_and_more_than_that():
    own = [style_of(mixer) for mixer in list_mixers()]
    assert len({look.colour for look in own}) == len(own)
    assert len({(look.marker, look.dash) for look in own}) == len(own)  # in black and white, too


@given(st.lists(st.tuples(NAMES, st.text("xy", max_size=1)), unique=True, max_size=20))
def test_the_colour_is_the_mixers_in_any_company_and_looks_differ(lines):
    found = styles(lines)
    assert list(found) == lines
    assert all(look.colour == style_of(mixer).colour for (mixer, _), look in found.items())
    assert len(set(found.values())) == len(lines)
    for look in found.values():
        assert look.colour < len(COLOURS)
        assert (look.marker < len(MARKERS), look.dash < len(DASHES)) == (True, True)
    ours = {mixer for mixer, _ in lines} & set(list_mixers())
    assert all(style_of(mixer) in found.values() for mixer in ours)  # nobody takes it from them


@pytest.mark.parametrize(
    "rows",
    [
        [row(f"{m}_nano", size, mixer=m) for m in ("mila", "softmax") for size in (64, 96)],
        [cost(f"{m}_nano", size, mixer=m) for m in ("mila", "softmax") for size in (64, 96)],
        [random_row(m, n) for m in ("mila", "softmax") for n in (49, 256)],
        [study_row("needle", m, resolution=n) for m in ("mila", "softmax") for n in (128, 256)],
    ],
    ids=["accuracy", "cost", "dispersion", "study"],
)
def test_plots_and_page_draw_a_mixer_in_the_same_colour(tmp_path, monkeypatch, rows):
    drawn: list[Figure] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    view = next(view for view in VIEWS if view.measure == rows[0].measure)
    for figure in view.figures:
        plot.plot_figure(figure, view.lines(rows), tmp_path)
    found = set()
    for figure in drawn:
        handles, names = figure.axes[0].get_legend_handles_labels()
        named = dict(zip(names, handles, strict=True))
        (handle,) = [handle for name, handle in named.items() if name.startswith("softmax")]
        found.add(to_hex(handle[0].get_color()))
    text = write_page(rows, tmp_path / "report.html", VIEWS).read_text()
    lines = [line for shown in figures_of(text).values() for line in shown["lines"]]
    (place,) = {line["colour"] for line in lines if line["mixer"] == "softmax"}
    found.add(re.search(rf"\.c{place} {{ --light: (#\w+);", text)[1].lower())
    assert found == {COLOURS[style_of("softmax").colour][0].lower()}
