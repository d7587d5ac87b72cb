"""What every app tells of a mistaken command line, before anything is read or written."""

from __future__ import annotations

import contextlib
import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from semabench.app import hydra_message, one_line_errors, run_app
from semabench.config.key import unknown_key
from semabench.config.schema import ModelConfig, TrainConfig, known_keys, to_config
from semabench.errors import SemabenchError


def told(words: list[str], patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line about an app's words, or the words as the app would get them."""
    patch.setattr(sys, "argv", ["train.py", *words])
    with contextlib.suppress(SystemExit):
        run_app(lambda: print(*sys.argv[1:]), lambda: known_keys(TrainConfig))
    (line,) = "".join(capsys.readouterr()).splitlines()
    return line


def test_flags_may_stand_anywhere(monkeypatch, capsys):
    words = ["experiment=demo", "-m", "seed=0,1"]
    assert told(words, monkeypatch, capsys) == "-m experiment=demo seed=0,1"
    words = ["seed=3", "--cfg", "job", "~data"]
    assert told(words, monkeypatch, capsys) == "--cfg job seed=3 ~data"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "5"], "Did you mean 'recipe.epochs'"),
        (["--recipe.lr=5"], "without dashes, KEY=VALUE recipe.lr=..."),
        (["--cfg", "jb"], "invalid choice: 'jb'"),
    ],
)
def test_a_flag_of_another_habit_is_told_with_the_key(words, message, monkeypatch, capsys):
    assert message in told(words, monkeypatch, capsys)


def test_a_group_without_a_name_is_one_line(monkeypatch, capsys):
    def main() -> None:
        raise ValueError("Config group override must be a string or a list. Got int")

    monkeypatch.setattr(sys, "argv", ["train.py", "model=3"])
    with pytest.raises(SystemExit):
        run_app(main, list)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the name of an option" in line


def test_a_key_within_a_mapping_is_the_one_that_is_told():
    error = Exception("Could not override 'steps'.\nTo append to your config use +steps={neddle:1}")
    assert hydra_message(error, ["steps"]) == "steps cannot have that value."
    error.__cause__ = Exception("Key 'neddle' is not in struct")
    assert hydra_message(error, ["steps"]) == "steps has no 'neddle'."


def test_a_key_of_a_group_of_which_nothing_is_chosen_asks_for_a_choice():
    error = Exception("Could not override 'data.source'.\nTo append use +data.source=X")
    error.__cause__ = Exception("Key 'data' is not in struct")
    assert hydra_message(error, ["data", "data.source"]) == "data.source needs data=NAME, too."
    assert "unknown config key" in hydra_message(error, ["models"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lr", "Did you mean 'recipe.lr'?"),
        ("recipe.lrr", "Did you mean 'recipe.lr'?"),
        ("model.options.depths", "is added: +model.options.depths=..."),
        ("qqq", "Choose one of: data, model, recipe."),
        ("name", "Did you mean 'data.name'?"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(key, message):
    keys = ["data", "data.name", "model", "recipe", "recipe.lr", "recipe.weight_decay"]
    assert message in unknown_key(key, keys)


def broken() -> None:
    raise ZeroDivisionError("by nothing\nat all")


def test_a_fault_of_ours_is_one_line_with_the_place_of_its_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run_app(broken, list)
    assert ended.value.code == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ZeroDivisionError: by nothing (unexpected; the traceback is in")
    (log,) = tmp_path.iterdir()
    assert str(log) in line
    assert "in broken" in log.read_text()
    assert "seed=1" in log.read_text()


def test_a_developer_sees_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("SEMABENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run_app(broken, list)


def test_a_full_gpu_is_told_with_what_helps(monkeypatch, capsys):
    class OutOfMemoryError(RuntimeError):
        pass

    def full() -> None:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB. GPU 0 has ...")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        run_app(full, list)
    assert ended.value.code == 2
    assert "trainer.accumulate" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_is_told_with_its_place(monkeypatch, capsys):
    def refused() -> None:
        with one_line_errors():  # as around a job, whose errors Hydra would take for its own
            raise PermissionError(13, "Permission denied", "/data/locked")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        run_app(refused, list)
    assert ended.value.code == 2
    assert "no permission for /data/locked" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["a=b", "x(y", "a#b", "don't", "d'o\"n", "/tmp/ü x", 'a"(b', "${x", "é"]
)
def test_a_value_that_hydra_cannot_read_is_told_with_quotes_that_it_can(value):
    parser = OverridesParser.create()
    with pytest.raises(OverrideParseException) as error:
        parser.parse_overrides([f"data.packed={value}"])
    line = hydra_message(error.value, known_keys(TrainConfig))
    (word,) = shlex.split(line.rpartition("as in ")[2])
    assert parser.parse_override(word).value() == value
    assert "hydra.cc" not in line


def test_a_value_taken_from_a_key_that_is_not_there_is_told():
    with pytest.raises(SemabenchError, match=r"'name': Interpolation key 'x' not found"):
        to_config(OmegaConf.create({"name": "${x}", "mixer": None}), ModelConfig)
