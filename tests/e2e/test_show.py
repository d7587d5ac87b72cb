"""`semabench show` on a trained run: four figures, in the report and on the page, too."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

from helpers.image_makers import jpeg
from semabench.cli import main as semabench

NAMES = ["confusion", "influence", "predictions", "receptive-field"]


def test_figures_are_drawn_and_reported(copied, monkeypatch, capfd):
    monkeypatch.chdir(copied.cwd)
    run = str(copied.run_dir)
    semabench(["show", run, "--resolutions", "48", "32"])
    folder = copied.run_dir / "pictures"
    assert sorted(path.stem for path in folder.iterdir()) == NAMES
    assert str(folder / "influence.png") in capfd.readouterr().out
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors(1 << 16)) > 20  # not blank
    semabench(["report", run, "--html"])
    text = (copied.run_dir / "report/report.md").read_text()
    assert text.count("](../pictures/") == 4
    page = (copied.run_dir / "report/report.html").read_text()
    data = base64.b64encode((folder / "confusion.png").read_bytes()).decode()
    assert f'src="data:image/png;base64,{data}"' in page
    assert "img-src data:" in page


def test_an_image_of_ones_own_and_what_cannot_be_shown(copied, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(copied.cwd)
    (tmp_path / "mine.jpg").write_bytes(jpeg(90, 60))
    run = str(copied.run_dir)
    own = ["--image", str(tmp_path / "mine.jpg"), "--out", str(tmp_path / "out")]
    semabench(["show", run, "--resolutions", "32", "48", *own])
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == NAMES
    for words, message in (
        (["--resolutions", "32"], "needs two sizes at least"),
        (["--resolutions", "32", "64"], "is not rendered at 64 px"),
        (["--resolutions", "32", "48", "--image", "nowhere.jpg"], "cannot read nowhere.jpg"),
    ):
        with pytest.raises(SystemExit) as told:
            semabench(["show", run, *words])
        assert told.value.code == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert message in error
