"""The torch backend against the equation; the Triton kernels by test_triton_kernels.py."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.ops import depthwise_down


@pytest.mark.parametrize("shape", [(2, 7, 6, 6), (1, 1, 1, 3), (1, 2, 5, 2)])
def test_backends_agree(shape):
    torch.manual_seed(0)
    channels = shape[-1]
    x, weight = torch.randn(shape).double(), torch.randn(channels, 1, 3, 3).double()
    bias, in_bias = torch.randn(2, channels).double()
    found, expected = (
        depthwise_down(x, weight, bias, in_bias, backend=backend)
        for backend in ("torch", "reference")
    )
    assert found.shape == (shape[0], -(-shape[1] // 2), -(-shape[2] // 2), channels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_shapes_that_do_not_fit():
    x, weight, bias = torch.zeros(1, 4, 4, 3), torch.zeros(3, 1, 3, 3), torch.zeros(3)
    with pytest.raises(SemabenchError, match=r"two biases \(C\), not .*\(2,\)"):
        depthwise_down(x, weight, bias, bias[:2])
    with pytest.raises(SemabenchError, match="triton"):
        depthwise_down(x, weight, bias, bias, backend="tritn")
