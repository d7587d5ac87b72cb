"""The cluster, and a tiny data set to train on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.cluster import Cluster, missing, running_cluster
from semabench.cli import main as semabench


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of six nodes. Where it is not installed, these tests cannot be run; CI has it."""
    if absent := missing():
        text = f"no {', '.join(absent)}: apt-get install slurm-wlm munge"
        if os.environ.get("SEMABENCH_REQUIRE_SLURM"):
            pytest.fail(text)
        pytest.skip(text)
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train/, val/ and their packed files: 144 and 45 pictures."""
    shapes = str(tmp_path_factory.mktemp("shapes"))
    semabench(["data", "shapes", shapes, "--train", "144", "--val", "45", "--size", "96"])
    semabench(["data", "pack", shapes, shapes])
    semabench(["data", "render", shapes, shapes, "--resolution", "32", "--crop-pct", "1.0"])
    return Path(shapes)
