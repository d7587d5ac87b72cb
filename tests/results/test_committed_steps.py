"""The figures of the train step in docs/training.md are those of the committed rows."""

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [
    json.loads(line)
    for line in (REPOSITORY / "results" / "step-h100.jsonl").read_text().splitlines()
]
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
    names = {
        "sema_tiny": "SEMA-T",
        "sema_nano": "`sema_nano`",
        "swin_tiny": "Swin-T",
        "mila_tiny": "MILA-T",
        "vmamba_tiny_s1l8": "VMamba-T",
    }
    lines = set()
    for how, settings in (("uncompiled", UNCOMPILED), ("compiled", COMPILED)):
        for model, resolution in {(row["model"], row["resolution"]) for row in ROWS}:
            before, after = (speeds(model, resolution, setting) for setting in settings)
            busy = allowed(model, resolution) if how == "compiled" else ""
            cells = f"{names[model]}, {how}", str(resolution), before, after, busy
            if before or after:
                lines.add("| " + " | ".join(cells).replace("|  |", "| |") + " |")
    found = {line.replace("|  |", "| |") for line in page.splitlines() if "ompiled | " in line}
    assert {" ".join(line.split()) for line in found} == {" ".join(line.split()) for line in lines}
