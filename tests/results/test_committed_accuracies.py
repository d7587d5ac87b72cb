"""What an experiment's file says was measured are its committed rows."""

import re
from pathlib import Path

from semabench.evaluation.accuracy.views import lines as summarise
from semabench.results import read_rows

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_nanos_under_the_common_recipe():
    text = (REPOSITORY / "conf/experiment/clothing10_common.yaml").read_text()
    told = {
        model: tops.split() for model, tops in re.findall(r"(\w+_nano) +((?:\d\d\.\d ?){5})", text)
    }
    rows = read_rows(REPOSITORY / "results/clothing10-common-h200.csv")
    lines = {line.first.model: line for line in summarise(rows)}
    assert told == {
        model: [f"{line.estimate(place, 'top1').mean:.1f}" for place in line.points]
        for model, line in lines.items()
    }
    for line in lines.values():
        assert (line.seeds, line.first.recipe, line.first.n) == (1, "common-20", 897)
        assert all(1.55 <= line.estimate(p, "top1").stderr < 1.75 for p in line.points)
