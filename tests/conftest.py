"""Fixtures shared by all tests: where the reference outputs and the real photographs lie."""

import os
import signal
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    """Hear ctrl-C, and let the processes that tests start hear it.

    What a script's shell starts in the background ignores it, children included.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Inputs and outputs of the official models."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def photographs_dir() -> Path:
    """A few real photographs in ImageNet layout: train/<class>/*.jpg and val/<class>/*.jpg."""
    return Path(__file__).parent / "images"


@pytest.fixture(scope="session")
def many_photographs_dir() -> Path:
    """A whole folder of them, for tests marked ``many_photographs``."""
    return Path(os.environ["SEMABENCH_PHOTOGRAPHS"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the tests that mostly wait, for Slurm, then with the long files.

    So the others run beside them, and both workers end together: pytest-xdist keeps this order if
    told ``--no-loadscope-reorder``, and else starts with the files of many tests, which are quick.
    What is marked ``many_photographs`` is left out unless a variable names their folder, and
    what is marked ``gpu`` is skipped where there is none; CI, which has none, does not select it.
    """
    if "SEMABENCH_PHOTOGRAPHS" not in os.environ:
        slow = [item for item in items if item.get_closest_marker("many_photographs")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    items.sort(key=lambda item: [folder not in item.path.parts for folder in ("slurm", "e2e")])
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
