"""The committed rows of cost are whole."""

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


@pytest.mark.parametrize(
    ("card", "device"), [("h100", "NVIDIA H100 80GB HBM3"), ("h200", "NVIDIA H200")]
)
def test_rows_are_of_one_device_and_complete(card, device):
    rows = read_rows(REPOSITORY / f"results/cost-{card}.csv")
    assert {row.device for row in rows} == {device}
    found = {(row.model, row.execution, row.mode, row.resolution, row.batch_size) for row in rows}
    executions = ("eager", "compiled")
    assert found == {(m, e, *c) for m, e, c in product(MODELS, executions, CONDITIONS)}
    assert len({row.key for row in rows}) == len(rows) == len(found)


def test_at_batch_128_alone_numbers_scatter():
    """As docs/cost.md says: there some rows are the host's."""
    rows = read_rows(REPOSITORY / "results/cost-h100.csv")
    wide = [r for r in rows if r.images_per_second_spread > 0.02 * r.images_per_second]
    assert {row.batch_size for row in wide} == {128}
