"""Runs the test_triton_kernels.py of every op in Triton's interpreter, where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

OPS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/test_triton_kernels.py"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU itself")
@pytest.mark.parametrize("op", OPS)
def test_kernels_in_the_interpreter(op):
    pytest.importorskip("triton")
    tests = Path(__file__).parent / op / "test_triton_kernels.py"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not gpu", "-p", "no:cacheprovider", tests],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert " passed" in ran.stdout
