"""The figures of the train step in docs/training.md are those of the committed rows."""

import json
from pathlib import Path
from statistics import mean, stdev

REPOSITORY = Path(__file__).resolve().parents[2]


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (REPOSITORY / "results" / name).read_text().splitlines()]


ROWS = read("step-h100.jsonl")
NAMES = {
    "sema_tiny": "SEMA-T",
    "sema_nano": "`sema_nano`",
    "swin_tiny": "Swin-T",
    "mila_tiny": "MILA-T",
    "vmamba_tiny_s1l8": "VMamba-T",
}
UNCOMPILED = "trainer.compile=false trainer.graph=false", "trainer.compile=false"
COMPILED = "trainer.compile=true trainer.graph=false", "trainer.compile=true"


def speeds(model: str, resolution: int, setting: str) -> str:
    """Return the img/s of the runs; where only the GPU's work was asked for, none."""
    where = {"model": model, "resolution": resolution, "setting": setting}
    found = [row for row in ROWS if where.items() <= row.items()]
    return ", ".join(
        f"{row['images_per_second']:,.0f}" for row in found if "images_per_second" in row
    )


def allowed(model: str, resolution: int) -> str:
    """Return the img/s at which a compiled, recorded step would leave the GPU no gap."""
    where = {"model": model, "resolution": resolution, "setting": COMPILED[1]}
    found = [row for row in ROWS if where.items() <= row.items() and "busy_ms" in row]
    return ", ".join(f"{1e3 * row['batch'] / row['busy_ms']:,.0f}" for row in found)


def test_every_figure_is_a_rows():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    lines = set()
    for how, settings in (("uncompiled", UNCOMPILED), ("compiled", COMPILED)):
        for model, resolution in {(row["model"], row["resolution"]) for row in ROWS}:
            before, after = (speeds(model, resolution, setting) for setting in settings)
            busy = allowed(model, resolution) if how == "compiled" else ""
            cells = f"{NAMES[model]}, {how}", str(resolution), before, after, busy
            later = how == "compiled" and resolution == 224  # in the other table, with kernels
            if (before or after) and not later:
                lines.add("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    found = {line.replace("|  |", "| |") for line in page.splitlines() if "ompiled | " in line}
    assert {" ".join(line.split()) for line in found} == {" ".join(line.split()) for line in lines}


def test_every_figure_with_kernels_is_a_rows():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    rows = read("step-h200.jsonl")
    kernels = rows[-1]["commit"]
    lines = set()
    for row in rows:
        if "images_per_second" not in row:
            continue
        same = ("model", "resolution", "batch", "commit")
        busy = [r for r in rows if "busy_ms" in r and all(r[k] == row[k] for k in same)]
        torch = row["model"] != "swin_tiny" and row["commit"] != kernels
        cells = (
            NAMES[row["model"]] + (", plain PyTorch" if torch else ""),
            f"{row['resolution']} | {row['batch']} | {row['images_per_second']:,.0f}",
            f"{1e3 * row['batch'] / busy[0]['busy_ms']:,.0f}" if busy else "",
        )
        lines.add(" ".join(f"| {' | '.join(cells)} |".split()))
    table = page.partition("run each ([rows](../results/step-h200.jsonl))")[2].split("\n\n")[1]
    assert set(table.splitlines()[2:]) == lines


def test_accuracies_with_and_without_graph_and_kernels_are_rows():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    found: dict[str, list[float]] = {}
    for row in read("clothing10-step-h200.jsonl"):
        found.setdefault(row["setting"], []).append(row["top1"])
    told = [f"{mean(tops):.1f} ± {stdev(tops) / len(tops) ** 0.5:.1f}" for tops in found.values()]
    graph, without, torch = told
    assert f"{graph} % with the graph, {without} without, {torch} with" in page
