"""Fixtures shared by all tests: where the reference outputs and the real pictures lie."""

import signal
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure() -> None:
    """Hear ctrl-C, and let the processes that tests start hear it.

    What a script's shell starts in the background ignores it, children included.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(part: str) -> Path:
    path = SHARED / part
    if not path.is_dir():
        pytest.skip(f"{part} is not in a folder named shared beside this checkout")
    return path


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Inputs and outputs of the official models."""
    return _shared("golden")


@pytest.fixture(scope="session")
def clothing_dir() -> Path:
    """Real photographs in ImageNet layout: train/<class>/*.jpg and val/<class>/*.jpg."""
    return _shared("data/clothing10-256")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that mostly wait, for Slurm, then with the long files.

    So the others run beside them, and both workers end together: pytest-xdist keeps this order if
    told ``--no-loadscope-reorder``, and else starts with the files of many tests, which are quick.
    What is marked ``gpu`` is skipped where there is none; CI, which has none, does not select it.
    """
    items.sort(key=lambda item: [folder not in item.path.parts for folder in ("slurm", "e2e")])
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
