"""The committed rows of cost are whole."""

from datetime import datetime
from itertools import product
from pathlib import Path

import pytest

from semabench.results import read_rows

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = (
    "sema_tiny",
    "mila_tiny",
    "vmamba_tiny_s1l8",
    "vim_small",
    "swin_tiny_patch4_window7_224",
    "deit_small_patch16_224",
    "convnext_tiny",
)
CONDITIONS = [
    ("train", 224, 128),
    ("train", 224, 256),
    ("infer", 224, 128),
    ("infer", 224, 256),
    ("infer", 512, 32),
    ("infer", 1024, 8),
]
EXECUTIONS = ("eager", "compiled")


@pytest.mark.parametrize(
    ("card", "device"), [("h100", "NVIDIA H100 80GB HBM3"), ("h200", "NVIDIA H200")]
)
def test_rows_are_of_one_device_and_complete(card, device):
    rows = read_rows(REPOSITORY / f"results/cost-{card}.csv")
    assert {row.device for row in rows} == {device}
    found = {(row.model, row.execution, row.mode, row.resolution, row.batch_size) for row in rows}
    assert found == {(m, e, *c) for m, e, c in product(MODELS, EXECUTIONS, CONDITIONS)}
    assert len({row.key for row in rows}) == len(rows) == len(found)


def test_at_batch_128_alone_numbers_scatter():
    """As docs/cost.md says: there some rows are the host's."""
    rows = read_rows(REPOSITORY / "results/cost-h100.csv")
    wide = [r for r in rows if r.images_per_second_spread > 0.02 * r.images_per_second]
    assert {row.batch_size for row in wide} == {128}


def test_what_the_page_says_of_the_run():
    """Of the H100's: one run, whose windows scatter at batch 128 alone; of the H200's: two."""
    text = " ".join((REPOSITORY / "docs/cost.md").read_text().split())
    one, two = (read_rows(REPOSITORY / f"results/cost-{card}.csv") for card in ("h100", "h200"))
    began = [datetime.fromisoformat(row.time) for row in one]  # when its process did
    assert (max(began) - min(began)).total_seconds() < 60
    assert len({(row.commit, row.versions) for row in one}) == 1
    wide = [row for row in one if row.images_per_second_spread > 0.02 * row.images_per_second]
    assert {row.batch_size for row in wide} == {128}
    assert "**At batch 128 some rows are the host's, not the GPU's**" in text
    runs = {
        execution: {r.commit for r in two if r.execution == execution} for execution in EXECUTIONS
    }
    assert [len(commits) for commits in runs.values()] == [1, 1]
    assert runs["eager"] != runs["compiled"]
