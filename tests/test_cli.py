"""The command line: its errors are one line, with the nearest name and exit code 2."""

from __future__ import annotations

import runpy
import sys

import pytest

from semabench.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["dat"], "Did you mean 'data'"),
        (["data", "pak"], "Did you mean 'pack'"),
        (["data", "pack", "a"], "required: out"),
        (["data", "pack", "a", "b", "--qualty", "3"], "Did you mean '--quality'"),
        (["data", "pack", "a", "b", "--mode", "jpeg"], "Did you mean 'jpg'"),
        (["data", "pack", "a", "b", "--max-resolution", "big"], "invalid int value: 'big'"),
        (["data", "pack", "/nonexistent", "OUT"], "/nonexistent"),
        (["data", "pack", "/nonexistent", "OUT", "--mode", "raw", "--quality", "3"], "quality"),
        (["data", "render", "/nonexistent", "OUT", "--resolution", "16"], "16"),
        (["data", "check", "/nonexistent.beton"], "/nonexistent.beton"),
        (["report", "/nonexistent"], "/nonexistent"),
        (["models", "sema_tinny"], "Did you mean 'sema_tiny'"),
        (["models", "--resolution", "8"], "smallest is 32"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main([a.replace("OUT", str(out)) for a in arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not out.exists() or list(out.iterdir()) == []


def test_models_lists_parameters_and_multiply_adds(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["models", "sema_tiny", "mila_tiny", "resnet18"])
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        name, *cells = line.split() or [""]
        rows[name] = cells
    assert rows["sema_tiny"][:2] == ["sema", "26.04"]
    assert rows["mila_tiny"] == ["mila", "24.39", "4.130", "83.5", "mila_tiny"]
    assert rows["resnet18"] == ["-", "11.69", "1.814"]
    assert float(rows["sema_tiny"][2]) == pytest.approx(4.4, abs=0.044)


def test_the_version_is_the_packages(capsys):
    from semabench import __version__

    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"semabench {__version__}"


def test_python_runs_the_package(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["semabench", "dat"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("semabench", run_name="__main__")
    assert stopped.value.code == 2
    assert "Did you mean 'data'" in capsys.readouterr().err
