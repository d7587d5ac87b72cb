"""The page in a real Chromium: as drawn, on a phone, in the dark, by keyboard, in print.

In CI a missing browser is a failure, so that these tests never go unrun; elsewhere it is a skip.
"""

from __future__ import annotations

import os

import pytest

from helpers.chromium import Chromium, find_chromium
from helpers.page_rows import EVIL, VIEWS, rows
from helpers.rows import row
from semabench.results.page import write_page

LINES = "document.querySelectorAll('svg.chart .line').length"
TIP = "document.getElementById('tip').innerText.replace(/\\s+/g, ' ')"
FIRST = "#accuracy-top1-resolution-0"
CONTRAST = """(() => {
  const light = (rgb) => {
    const [r, g, b] = rgb.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return ['body', '.faint', 'a', 'svg.chart text', '.c0', '.c3'].map((selector) => {
    const element = document.querySelector(selector);
    const style = getComputedStyle(element);
    const ink = light(element.tagName === 'text' ? style.fill : style.color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  });
})()"""
CUT = """[...document.querySelectorAll('svg.chart')].flatMap((chart) => {
  const frame = chart.getBoundingClientRect();
  return [...chart.querySelectorAll('text')].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 2 || box.right > frame.right + 2;
  }).map((text) => text.textContent);
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        assert not os.environ.get("CI"), "CI needs Chromium: .ci/run installs it"
        pytest.skip("no Chromium here (apt-get install chromium); CI has one")
    with Chromium(executable, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_page(rows(), tmp_path_factory.mktemp("page") / "report.html", VIEWS)


def troubles(browser) -> list:
    kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    return [event for event in browser.events if event["method"] in kinds]


def test_every_figure_is_drawn_and_nothing_is_loaded(browser, page):
    browser.open(page)
    figures = browser.evaluate("document.querySelectorAll('figure').length")
    assert figures > 8
    assert browser.evaluate("document.querySelectorAll('svg.chart').length") == figures
    data = "Object.values(JSON.parse(document.getElementById('data').textContent))"
    points = browser.evaluate(f"{data}.flatMap((f) => f.lines).flatMap((l) => l.points).length")
    assert browser.evaluate("document.querySelectorAll('svg.chart .marker').length") == points
    assert browser.evaluate(f"document.querySelectorAll('{FIRST} .band').length") == 1
    assert not browser.evaluate("document.querySelector('svg.chart').innerHTML.includes('NaN')")
    asked = [e for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert {event["params"]["request"]["url"] for event in asked} == {page.as_uri()}
    assert troubles(browser) == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_at_no_width_the_page_scrolls_sideways_or_cuts_a_label(browser, page, width):
    browser.open(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CUT) == []


def test_text_and_lines_stand_out_in_light_and_dark(browser, page):
    for scheme, dark in (("light", False), ("dark", True)):
        browser.open(page, scheme=scheme)
        *texts, sema, mila = browser.evaluate(CONTRAST)
        assert min(texts) >= 4.5
        assert min(sema, mila) >= 3
        paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper != "rgb(255, 255, 255)") is dark


def test_the_theme_is_switched_by_keyboard_and_kept(browser, page):
    browser.open(page)
    browser.evaluate("document.getElementById('theme').focus()")
    for expected in ("Theme: light", "Theme: dark"):
        browser.key("Enter")
        assert browser.evaluate("document.getElementById('theme').textContent") == expected
    paper = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(paper) == "rgb(20, 23, 26)"
    browser.open(page)
    assert browser.evaluate(paper) == "rgb(20, 23, 26)"
    browser.click("#theme")
    assert browser.evaluate(paper) == "rgb(255, 255, 255)"


def test_a_mixer_is_filtered_out_of_figures_and_tables(browser, page):
    browser.open(page)
    shown = "document.getElementById('shown').textContent"
    rows_of = "[...document.querySelectorAll('tbody tr')].filter((r) => r.dataset.mixer === 'mila'"
    before, lines = browser.evaluate(LINES), browser.evaluate(shown)
    browser.click("[data-filter=mixer] input[value=mila]")
    assert browser.evaluate(LINES) < before
    assert browser.evaluate(f"{rows_of} && r.offsetParent).length") == 0
    assert browser.evaluate(shown) != lines
    browser.click("[data-filter=mixer] [data-all=false]")
    assert browser.evaluate(LINES) == 0
    assert "No line is chosen" in browser.evaluate("document.querySelector('svg').textContent")
    browser.click("[data-filter=mixer] [data-all=true]")
    assert (browser.evaluate(LINES), browser.evaluate(shown)) == (before, lines)
    browser.click(f"{FIRST} .legend button")
    assert browser.evaluate(f"document.querySelectorAll('{FIRST} svg.chart .line').length") == 1
    assert troubles(browser) == []


def test_a_table_is_sorted_by_its_headers(browser, page):
    browser.open(page)
    cells = "[...document.querySelectorAll('#accuracy tbody tr')].slice(0, 2).map((r) => "
    last = f"{cells}r.cells[r.cells.length - 1].textContent)"
    browser.click("#accuracy thead th:last-child button")
    assert browser.evaluate(last) == ["74.0 ±1.2", "70.0 ±4.6"]
    browser.key("Enter")  # the button has the focus
    assert browser.evaluate(last) == ["70.0 ±4.6", "74.0 ±1.2"]
    order = "document.querySelector('#accuracy thead th:last-child').getAttribute('aria-sort')"
    assert browser.evaluate(order) == "ascending"
    browser.click("#accuracy thead th:first-child button")
    assert browser.evaluate(f"{cells}r.cells[0].textContent)") == ["mila_nano", "sema_nano"]


def test_a_point_tells_its_numbers_to_the_mouse_and_to_the_arrow_keys(browser, page):
    browser.open(page)
    browser.point(f"{FIRST} svg.chart .line .marker")
    told = browser.evaluate(TIP)
    for part in ("sema_nano", "70.0 ±1.2 %", "64 px", "n 100", "3 (0, 1, 2)"):
        assert part in told
    browser.evaluate(f"document.querySelector('{FIRST} svg.chart').focus()")
    browser.key("Escape")
    assert browser.evaluate("document.getElementById('tip').hidden")
    for key, part in (
        ("ArrowRight", "64 px"),
        ("ArrowRight", "74.0 ±1.2 % resolution 96 px"),
        ("ArrowRight", "96 px"),
        ("ArrowDown", "mila_nano"),
        ("ArrowLeft", "64 px"),
    ):
        browser.key(key)
        assert part in browser.evaluate(TIP), key
    browser.click(f"{FIRST} .head button")
    label = f"document.querySelector('{FIRST} svg.chart').textContent.includes('%), log')"
    assert browser.evaluate(label)
    assert troubles(browser) == []


def test_print_is_light_and_shows_all_whatever_is_chosen(browser, page, tmp_path):
    browser.open(page, scheme="dark")
    before = browser.evaluate(LINES)
    browser.click("[data-filter=mixer] input[value=mila]")
    browser.click(f"{FIRST} .legend button")
    chosen = browser.evaluate(LINES)
    browser.evaluate(
        "addEventListener('beforeprint', () => { window.printed = ["
        f"{LINES}, document.querySelectorAll('details.numbers:not([open])').length]; }}), 0"
    )
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert browser.evaluate("window.printed") == [before, 0]
    browser.wait(LINES, lambda lines: lines == chosen)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    hidden = "[...document.querySelectorAll('tbody tr')].filter((r) => getComputedStyle(r)"
    assert paper == "rgb(255, 255, 255)"
    assert browser.evaluate(f"{hidden}.display === 'none').length") == 0
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


def test_a_script_in_a_name_does_not_run(browser, tmp_path):
    evil = [row(EVIL, size, mixer=EVIL, device=EVIL, options=EVIL) for size in (64, 96)]
    browser.open(write_page(evil, tmp_path / "report.html", VIEWS), 390)
    browser.point("svg.chart .marker")
    assert EVIL in browser.evaluate("document.getElementById('tip').textContent")
    assert EVIL in browser.evaluate("document.querySelector('tbody th').textContent")
    assert browser.evaluate("typeof window.broken") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img, body script').length") == 2
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
