"""The tables of docs/h100.md and docs/h200.md are the committed rows."""

from datetime import datetime
from pathlib import Path

import pytest

from semabench.results import read_rows
from semabench.results.cost_summary import curves, scaling, subjects

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = {
    "sema_tiny": "SEMA-T",
    "mila_tiny": "MILA-T",
    "vmamba_tiny_s1l8": "VMamba-T s1l8",
    "vim_small": "Vim-S",
    "swin_tiny_patch4_window7_224": "Swin-T",
    "deit_small_patch16_224": "DeiT-S",
    "convnext_tiny": "ConvNeXt-T",
}
CONDITIONS = [
    ("train", 224, 128),
    ("train", 224, 256),
    ("infer", 224, 128),
    ("infer", 224, 256),
    ("infer", 512, 32),
    ("infer", 1024, 8),
]
SECTIONS = {"eager": ("**Eager**", "**Compiled**"), "compiled": ("**Compiled**", "## ")}
DEVICES = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
JOULES_AT = [condition for condition in CONDITIONS if condition[1:] != (224, 128)]


@pytest.fixture(scope="module", params=DEVICES)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def rows(page):
    return read_rows(REPOSITORY / f"results/cost-{page}.csv")


def section(page, begin, end):
    text = (REPOSITORY / f"docs/{page}.md").read_text()
    return text.split(begin)[1].split(end)[0].splitlines()


def cells(lines, label):
    """A model's cells in each table: images per second, MiB, joules."""
    return [
        [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines
        if line.startswith(f"| {label} |")
    ]


def test_rows_are_of_one_device_and_complete(page, rows):
    assert {row.device for row in rows} == {DEVICES[page]}
    found = {(row.model, row.execution, row.mode, row.resolution, row.batch_size) for row in rows}
    assert found == {
        (model, execution, *condition)
        for model in LABELS
        for execution in SECTIONS
        for condition in CONDITIONS
    }
    assert len({row.key for row in rows}) == len(rows) == len(found)


def test_the_table_of_one_run_is_of_one_run():
    rows = read_rows(REPOSITORY / "results/cost-h100.csv")
    began = [datetime.fromisoformat(row.time) for row in rows]  # when its process did
    assert (max(began) - min(began)).total_seconds() < 60
    assert len({(row.commit, row.versions) for row in rows}) == 1


@pytest.mark.parametrize("execution", SECTIONS)
def test_the_figures_are_the_rows(page, rows, execution):
    lines = section(page, *SECTIONS[execution])
    for model, label in LABELS.items():
        measured = {
            (r.execution, r.mode, r.resolution, r.batch_size): r for r in rows if r.model == model
        }
        speeds, memory, joules = cells(lines, label)
        energy = dict(zip(JOULES_AT, joules, strict=True))
        for condition, speed, mebibytes in zip(CONDITIONS, speeds, memory, strict=True):
            row = measured[execution, *condition]
            assert f"{row.images_per_second:,.0f}" == speed.split()[0]
            assert ("±" in speed) == (row.images_per_second_spread > 0.02 * row.images_per_second)
            if execution == "compiled":
                eager = measured["eager", *condition].images_per_second
                assert speed.endswith(f"({row.images_per_second / eager:.1f})")
            assert f"{row.peak_memory_mib:,.0f}" == mebibytes
            if condition in energy:
                digits = len(energy[condition].partition(".")[2])
                assert f"{row.joules_per_image:.{digits}f}" == energy[condition]


def test_the_exponents_in_the_text_are_fitted_to_the_rows(page, rows):
    text = " ".join(" ".join(section(page, *SECTIONS["compiled"])).split())
    found = {
        curve.name: scaling(curve).latency
        for curve in curves(subjects(rows), "infer", "compiled")
        if len(curve.rows) > 1
    }
    for model in ("sema_tiny", "swin_tiny_patch4_window7_224", "vmamba_tiny_s1l8"):
        told = f"{found[model].exponent:.2f} ± {found[model].stderr:.2f}"
        assert told in text
