"""Repetitions averaged, equal rows once, lines named by what differs."""

import statistics

import pytest

from helpers.rows import row
from semabench.evaluation.accuracy.views import VIEW
from semabench.evaluation.accuracy.views import lines as summarise
from semabench.results.summary import describe_errors, setting_of


def top1(line, size=96):
    return line.estimate((size,), "top1")


def errors(lines, quantity="top1"):
    found = [line.estimate(place, quantity) for line in lines for place in line.points]
    return describe_errors(estimate for estimate in found if estimate)


def test_one_seed_keeps_its_binomial_error():
    (line,) = summarise([row(correct=80)])
    assert top1(line).mean == 80
    assert top1(line).stderr == pytest.approx(4.0)
    assert "binomial" in errors([line])


def test_seeds_are_averaged_with_the_error_between_them():
    values = [80, 84, 91]
    (line,) = summarise(row(correct=c, seed=s) for s, c in enumerate(values))
    assert line.seeds == 3
    assert top1(line).mean == pytest.approx(85)
    assert top1(line).stderr == pytest.approx(statistics.stdev(values) / 3**0.5)
    assert "over 3 seeds" in errors([line])


def test_same_seed_measured_twice_counts_once_the_newest():
    old = row(correct=10, batch_size=8)
    new = row(correct=90, batch_size=64, time="2026-02-01T00:00:00Z")
    for order in ([old, new], [new, old]):
        (line,) = summarise(order)
        assert (line.seeds, top1(line).mean) == (1, 90)


def test_a_mixture_says_so():
    lines = summarise([row(), row(seed=1), row("mila_nano")])
    assert "where there is a single seed" in errors(lines)


def test_the_bars_of_throughput_are_named():
    one = row(images_per_second=100.0, images_per_second_spread=3.0)
    other = row(images_per_second=110.0, images_per_second_spread=3.0, seed=1)
    lone = row("mila_nano", images_per_second=90.0, images_per_second_spread=2.0)
    assert "half the interquartile range" in errors(summarise([one, lone]), "images_per_second")
    assert errors(summarise([one, other]), "images_per_second").endswith("over 2 seeds, s/√seeds.")
    both = errors(summarise([one, other, lone]), "images_per_second")
    assert "single seed, half the interquartile" in both
    assert errors(summarise([row(images_per_second=9.0)]), "images_per_second") == ""


def test_places_are_sorted_whatever_the_order_of_rows():
    lines = summarise([row(resolution=r) for r in (128, 64, 96)])
    assert list(lines[0].points) == [(64,), (96,), (128,)]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"model": "mila_nano", "mixer": "mila"}, "mila_nano"),
        ({"mixer": "mean"}, "sema_nano, mean"),
        ({"options": "window_size=14"}, "sema_nano, window_size=14"),
        ({"weights": "ema"}, "sema_nano, ema"),
        ({"epochs": 6}, "sema_nano, epochs 6"),
        ({"device": "NVIDIA H200"}, "sema_nano, NVIDIA H200"),
        ({"config": "0123456789"}, "sema_nano, config 0123456"),
    ],
)
def test_what_differs_makes_another_line_and_is_named(change, name):
    lines = summarise([row(), row(**change)])
    assert len(lines) == 2
    assert lines[1].name == name


def test_config_hash_stays_out_of_sight_where_models_differ():
    lines = summarise([row(config="a"), row("mila_nano", config="b")])
    assert "config" not in lines[0].label


def test_setting_tells_what_all_share_and_only_that():
    lines = summarise([row(), row("mila_nano", precision="bf16")])
    (text,) = setting_of(lines)
    assert "shapes, n = 100" in text
    assert "bicubic" in text
    assert "fp32" not in text


def test_the_notes_of_a_table_tell_the_setting_and_the_errors():
    told, of = VIEW.notes(summarise([row()]))
    assert "crop 1" in told
    assert of == "± is the binomial standard error over the samples of one run, not over seeds."
