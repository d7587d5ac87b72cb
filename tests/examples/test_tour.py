"""The notebook: its cells, run one after another, in a directory of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers.apps import REPOSITORY, environment


def test_the_tour_runs_from_its_first_cell_to_its_last(tmp_path):
    notebook = json.loads((REPOSITORY / "examples" / "tour.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert len(cells) == 5
    # Smaller than what it shows, and the last value of each cell said, as a notebook does.
    program = "\n".join(cells).replace("train=1800, val=360", "train=180, val=45")
    program = program.replace('"recipe.epochs=3"', '"recipe.epochs=1"')
    assert program.count("train=180, val=45") == program.count('"recipe.epochs=1"') == 1
    (tmp_path / "tour.py").write_text(program + "\nprint(tuple(logits.shape))\n")
    done = subprocess.run(
        [sys.executable, "tour.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" px  ") >= 8
    assert done.stdout.splitlines()[-1] == "(1, 9)"
    assert (tmp_path / "report" / "accuracy.png").exists()


def test_it_is_stored_without_output_of_anybodys_machine():
    notebook = json.loads((REPOSITORY / "examples" / "tour.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])
