"""Corruption errors against the formula, over seeds, and only where nothing is missing."""

import statistics

import pytest

from semabench.evaluation.corruption.schema import ALEXNET_ERRORS
from semabench.evaluation.corruption.views import VIEW, corruption_error, error_table, lines
from semabench.results.record import Record


def rows(top1=lambda name, severity, seed: 80.0 - 10 * severity, seeds=(0,), **changes):
    """A model's rows of all corruptions and severities."""
    return [
        Record(
            measure="corruption", model="sema_tiny", mixer="sema", config="c", seed=seed,
            resolution=224, n=100, corruption=name, severity=severity,
            top1=top1(name, severity, seed), top1_stderr=1.0,
            **changes,
        )
        for seed in seeds for name in ALEXNET_ERRORS for severity in range(1, 6)
    ]  # fmt: skip


def test_alexnet_itself_has_an_error_of_100():
    (grid,) = error_table(lines(rows(lambda name, *_: 100 - ALEXNET_ERRORS[name])))
    assert {cell.text for cell in grid.rows[0].cells[1:]} == {"100.0"}


def test_errors_are_summed_over_severities_before_they_are_divided():
    fog = [row for row in rows() if row.corruption == "fog"]
    value = corruption_error(fog)
    assert value.mean == pytest.approx(100 * (30 + 40 + 50 + 60 + 70) / (5 * 81.9324))
    assert corruption_error(fog[1:]) is None  # a severity is missing
    (grid,) = error_table(lines(rows()))
    expected = statistics.fmean(50 / error for error in ALEXNET_ERRORS.values()) * 100
    assert grid.rows[0].cells[1].value == pytest.approx(expected)
    assert grid.header[:3] == ["model", "mCE", "gaussian\nnoise"]
    assert len(grid.header) == 17


def test_seeds_are_averaged_after_the_mean_over_corruptions():
    found = rows(lambda name, severity, seed: 50.0 + 10 * seed, seeds=(0, 1, 2))
    (grid,) = error_table(lines(found))
    scale = statistics.fmean(100 / error for error in ALEXNET_ERRORS.values())
    assert grid.rows[0].cells[1].text == f"{40 * scale:.1f} ±{10 * scale / 3**0.5:.1f}"
    assert len(grid.rows) == 1


def test_some_corruptions_have_no_mean():
    (grid,) = error_table(lines([row for row in rows() if row.corruption != "snow"]))
    assert grid.rows[0].cells[1].text == ""
    assert "snow" not in grid.header
    assert len([cell for cell in grid.rows[0].cells[2:] if cell.text]) == 14


def test_models_and_sizes_are_apart():
    both = [*rows(), *rows(options="window_size=14"), *rows(weights="ema")]
    (grid,) = error_table(lines(both))
    names = [row.cells[0].text for row in grid.rows]
    assert len(names) == len(set(names)) == 3
    assert all(name.startswith("sema_tiny") for name in names)
    assert VIEW.notes(lines(both))
