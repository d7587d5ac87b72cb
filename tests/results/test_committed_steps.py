"""The figures of the train step in docs/training.md are those of the committed rows."""

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (REPOSITORY / "results" / name).read_text().splitlines()]


def speeds(name: str, **wanted) -> str:
    found = [r for r in rows(name) if all(r[key] == value for key, value in wanted.items())]
    return ", ".join(f"{r['images_per_second']:,.0f}" for r in found)


def test_every_figure_is_a_rows():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    eager, graph = "trainer.compile=false trainer.graph=false", "trainer.compile=false"
    for model, resolution in (("sema_tiny", 128), ("sema_tiny", 224), ("sema_nano", 64)):
        where = {"model": model, "resolution": resolution}
        before, after = (
            speeds("step-h100.jsonl", setting=setting, **where) for setting in (eager, graph)
        )
        assert f"| {resolution} | {before} img/s | {after} img/s |" in page
    where = {"model": "sema_tiny", "resolution": 224}
    before, after = (
        speeds("step-synthetic-h100.jsonl", execution=how, **where)
        for how in ("compiled", "compiled-graph")
    )
    assert f"| 224 | {before} img/s | {after} img/s |" in page
