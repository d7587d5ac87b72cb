"""The torch backend against the equation; the Triton kernels by test_triton_kernels.py."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.ops import depthwise_conv, depthwise_conv_backend, tables


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


def test_the_backend_is_as_asked_for_where_it_runs(monkeypatch):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(tables, "_INTERPRETED", False)
    monkeypatch.setattr(tables, "_LACKS", "")
    assert depthwise_conv_backend("auto", gpu) == "triton"
    assert depthwise_conv_backend() == depthwise_conv_backend("auto", cpu) == "torch"
    assert depthwise_conv_backend("torch", gpu) == "torch"
    assert depthwise_conv_backend("triton", gpu, torch.bfloat16) == "triton"
    assert depthwise_conv_backend("triton", gpu, torch.float64) == "torch"
    assert depthwise_conv_backend("triton", cpu) == "torch"  # a run of a GPU's, evaluated here
    monkeypatch.setattr(tables, "_LACKS", "the package triton")
    assert depthwise_conv_backend("auto", gpu) == "torch"
    with pytest.raises(SemabenchError, match="needs the package triton"):
        depthwise_conv_backend("triton", gpu)
    with pytest.raises(SemabenchError, match=r"tritn.*triton"):
        depthwise_conv_backend("tritn")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.zeros(4, 1, 3, 3)}, r"weight \(C, 1, 3, 3\)"),
        ({"bias": torch.zeros(2)}, r"bias of shape \(3,\), not \(2,\)"),
        ({"add": torch.zeros(3)}, r"add of shape \(1, 4, 4, 3\), not \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit(changed, message):
    tensors = {"x": torch.zeros(1, 4, 4, 3), "weight": torch.zeros(3, 1, 3, 3)}
    with pytest.raises(SemabenchError, match=message):
        depthwise_conv(**tensors | changed)
