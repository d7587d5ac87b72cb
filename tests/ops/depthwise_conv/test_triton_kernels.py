"""The Triton kernels against float64, on a GPU or in Triton's interpreter (test_interpreter.py)."""

import os

import pytest
import torch

from semabench.ops import depthwise_conv

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_interpreter.py", allow_module_level=True)

from semabench.ops.depthwise_conv import triton_backend  # noqa: E402

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def assert_equals_float64(shape, dtype, adds, silu, biased=True, strided=False):
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator)

    *grid, channels = shape
    whole = normal(*grid, 3 * channels if strided else channels).to(dtype)
    leaves = {
        "x": whole,
        "weight": normal(channels, 1, 3, 3),
        **({"bias": normal(channels)} if biased else {}),
        **({"add": normal(*shape).to(dtype)} if adds == "other" else {}),
    }
    dy = normal(*shape).to(dtype)
    found = {}
    for backend, last in (("triton", dtype), ("reference", torch.float64)):
        exact = backend == "reference"
        made = {n: t.double() if exact else t.to(DEVICE) for n, t in leaves.items()}
        made = {n: t.clone().requires_grad_() for n, t in made.items()}
        x = made["x"][..., 2 * channels :] if strided else made["x"]
        add = x if adds == "itself" else made.get("add")
        y = depthwise_conv(x, made["weight"], made.get("bias"), add=add, silu=silu, backend=backend)
        assert y.dtype == last
        gradients = torch.autograd.grad(y, list(made.values()), dy.to(y))
        found[backend] = dict(zip(("y", *made), (y, *gradients), strict=True))
    for name, expected in found["reference"].items():
        got = found["triton"][name].double().cpu()
        error = (got - expected).abs().max() / expected.abs().max().clamp_min(1e-3)
        assert error <= TOLERANCE[dtype], f"{name}: {error:.1e}"


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("adds", ["nothing", "itself", "other"])
@pytest.mark.parametrize("shape", [(2, 7, 7, 16), (1, 1, 1, 3), (1, 1, 9, 4), (1, 30, 9, 12)])
def test_equals_float64(shape, adds, silu):
    assert_equals_float64(shape, torch.float32, adds, silu)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtypes_strides_and_no_bias(dtype):
    assert_equals_float64((2, 5, 6, 16), dtype, "other", True, biased=False, strided=True)


def test_gradients_repeat_exactly():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 9, 11, 8, device=DEVICE), torch.randn(8, 1, 3, 3, device=DEVICE)
    x.requires_grad_()
    weight.requires_grad_()
    first, second = (
        torch.autograd.grad(
            depthwise_conv(x, weight, silu=True, backend="triton").square().sum(), (x, weight)
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operators_are_declared_as_they_behave():
    x, add = torch.randn(2, 1, 4, 5, 4, device=DEVICE).requires_grad_().unbind()
    weight = torch.randn(4, 1, 3, 3, device=DEVICE, requires_grad=True)
    bias = torch.randn(4, device=DEVICE, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for silu in (False, True):
        arguments = (x, weight, bias, add, False, silu, True)
        torch.library.opcheck(triton_backend.conv_forward, arguments, test_utils=checks)
    dy, s = torch.randn(2, 1, 4, 5, 4, device=DEVICE).unbind()
    backward = (dy, x.detach(), weight.detach(), s, False, True)
    torch.library.opcheck(
        triton_backend.conv_backward, backward, test_utils=("test_schema", "test_faketensor")
    )


def test_compiles_into_one_graph():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 6, 5, 4, device=DEVICE), torch.randn(4, 1, 3, 3, device=DEVICE)
    weight.requires_grad_()

    def loss(x, weight):
        return depthwise_conv(x, weight, add=x, backend="triton").square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(x, weight), weight) for f in (compiled, loss))
    assert torch.equal(found[0], expected[0])


@pytest.mark.gpu
def test_autocast_computes_in_its_dtype():
    x = torch.randn(2, 8, 8, 32, device=DEVICE)
    weight = torch.randn(32, 1, 3, 3, device=DEVICE)
    with torch.autocast("cuda", torch.bfloat16):
        assert depthwise_conv(x, weight, backend="triton").dtype == torch.bfloat16


@pytest.mark.gpu
def test_more_than_2_31_numbers():
    """The last image of a batch beyond what 32 bits can count."""
    x = torch.zeros(2, 128, 128, 65_600, device=DEVICE, dtype=torch.bfloat16)
    x[-1] = torch.randn(128, 128, 1, device=DEVICE).to(x.dtype)
    weight = torch.randn(1, 1, 3, 3, device=DEVICE).expand(65_600, 1, 3, 3).contiguous()
    with torch.no_grad():
        y = depthwise_conv(x, weight, backend="triton")
        one = depthwise_conv(x[-1:, ..., :64].contiguous(), weight[:64], backend="triton")
    assert torch.equal(y[-1:, ..., -64:], one)
    assert not y[0].any()
