"""The torch backend against the equation; the Triton kernels by test_triton_kernels.py."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.ops import depthwise_conv, depthwise_conv_backend


@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 1, 1, 3), (1, 1, 4, 2)])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_backends_agree(shape, silu, adds, biased):
    torch.manual_seed(0)
    channels = shape[-1]
    x, add = torch.randn(2, *shape, dtype=torch.float64).unbind()
    weight = torch.randn(channels, 1, 3, 3, dtype=torch.float64)
    bias = torch.randn(channels, dtype=torch.float64) if biased else None
    found, expected = (
        depthwise_conv(x, weight, bias, add=add if adds else None, silu=silu, backend=backend)
        for backend in ("torch", "reference")
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_backend_is_as_asked_for():
    gpu = torch.device("cuda")
    assert depthwise_conv_backend() == depthwise_conv_backend("auto", gpu) == "torch"
    assert depthwise_conv_backend("triton", gpu, torch.bfloat16) == "triton"
    with pytest.raises(SemabenchError, match="takes no float64; use 'torch'"):
        depthwise_conv_backend("triton", gpu, torch.float64)
    with pytest.raises(SemabenchError, match=r"tritn.*triton"):
        depthwise_conv_backend("tritn")


def test_shapes_that_do_not_fit():
    with pytest.raises(SemabenchError, match=r"weight \(C, 1, 3, 3\)"):
        depthwise_conv(torch.zeros(1, 4, 4, 3), torch.zeros(4, 1, 3, 3))
