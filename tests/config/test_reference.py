"""The reference of keys: all of them, each with its default and what its declaration says."""

import pytest

from semabench import cli
from semabench.config.key import declared
from semabench.config.schema import TrainConfig


def printed(capsys, *words: str) -> str:
    cli.main(["config", *words])
    return capsys.readouterr().out


def test_every_key_of_training_is_in_it_once(capsys):
    text = printed(capsys, "train")
    groups = {"model", "data", "recipe", "trainer", "logger"}
    for declaration in declared(TrainConfig):
        assert text.count(f"| `{declaration.name}` |") == (declaration.name not in groups)


def test_a_key_tells_its_default_bounds_and_needs(capsys):
    row = printed(capsys, "recipe.mesa_start").splitlines()[-1]
    assert row.startswith("| `recipe.mesa_start` | 0.25 |")
    assert "at least 0 and at most 1" in row
    assert "no effect without MESA" in row


def test_all_has_a_section_for_each_app_and_measure(capsys):
    text = printed(capsys)
    for name in ("train", "accuracy", "cost", "dispersion", "study"):
        assert f"## {name}\n" in text


def test_a_mistyped_key_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        cli.main(["config", "recipe.lrr"])
    assert "Did you mean 'recipe.lr'?" in capsys.readouterr().err
