"""The tables of docs/h200.md are the committed rows."""

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
JOULES_AT = [condition for condition in CONDITIONS if condition[1:] != (224, 128)]


@pytest.fixture(scope="module")
def rows():
    return read_rows(REPOSITORY / "results/cost-h200.csv")


def section(begin, end):
    text = (REPOSITORY / "docs/h200.md").read_text()
    return text.split(begin)[1].split(end)[0].splitlines()


def cells(lines, label):
    """A model's cells in each table: images per second, MiB, joules."""
    return [
        [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines
        if line.startswith(f"| {label} |")
    ]


def test_rows_are_of_one_machine_and_complete(rows):
    assert {row.device for row in rows} == {"NVIDIA H200"}
    found = {(row.model, row.execution, row.mode, row.resolution, row.batch_size) for row in rows}
    assert found == {
        (model, execution, *condition)
        for model in LABELS
        for execution in SECTIONS
        for condition in CONDITIONS
    }
    assert len({row.key for row in rows}) == len(rows) == len(found)


@pytest.mark.parametrize("execution", SECTIONS)
def test_the_figures_are_the_rows(rows, execution):
    lines = section(*SECTIONS[execution])
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


def test_the_exponents_in_the_text_are_fitted_to_the_rows(rows):
    text = " ".join(section(*SECTIONS["compiled"]))
    found = {
        curve.name: scaling(curve).latency
        for curve in curves(subjects(rows), "infer", "compiled")
        if len(curve.rows) > 1
    }
    for model in ("sema_tiny", "swin_tiny_patch4_window7_224", "vmamba_tiny_s1l8"):
        told = f"{found[model].exponent:.2f} ± {found[model].stderr:.2f}"
        assert told in text
