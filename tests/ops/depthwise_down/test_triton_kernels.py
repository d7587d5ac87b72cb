"""The Triton kernels against float64, on a GPU or in Triton's interpreter (test_interpreter.py)."""

import os

import pytest
import torch

from semabench.ops import depthwise_down

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_interpreter.py", allow_module_level=True)

from semabench.ops.depthwise_down import triton_backend  # noqa: E402

TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def leaves(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (shape[-1], 1, 3, 3), shape[-1:], shape[-1:])
    x, *rest = (torch.randn(*size, generator=generator) for size in sizes)
    return [x.to(dtype), *rest]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "shape", [(2, 14, 14, 16), (1, 1, 1, 3), (1, 1, 9, 4), (1, 31, 18, 12), (1, 2, 1, 130)]
)
def test_equals_float64(shape, dtype):
    found = {}
    # ReLU's kink: values whose sign rounding may turn are left out of the comparison.
    dy = torch.randn(shape[0], -(-shape[1] // 2), -(-shape[2] // 2), shape[3])
    plain = depthwise_down(*[t.double() for t in leaves(shape, dtype)], backend="reference")
    dy = dy.to(dtype) * (plain > 0.1)
    for backend in ("triton", "reference"):
        exact = backend == "reference"
        made = [t.double() if exact else t.to(DEVICE) for t in leaves(shape, dtype)]
        made = [t.requires_grad_() for t in made]
        y = depthwise_down(*made, backend=backend)
        assert y.dtype == (torch.float64 if exact else dtype)
        found[backend] = [y, *torch.autograd.grad(y, made, dy.to(y))]
    for name, got, expected in zip(
        ("y", "x", "weight", "bias", "in_bias"), found["triton"], found["reference"], strict=True
    ):
        scale = expected.abs().max().clamp_min(1e-3)
        error = (got.double().cpu() - expected).abs().max() / scale
        assert error <= TOLERANCE[dtype], f"{name}: {error:.1e}"


def test_nan_stays_nan():
    """A run that diverges must be seen to; the reference is torch's."""
    found = {}
    for backend in ("triton", "torch"):
        x, *rest = (t.to(DEVICE) for t in leaves((1, 6, 6, 16)))
        x[0, 2, 3, :4] = torch.nan
        made = [t.requires_grad_() for t in (x, *rest)]
        y = depthwise_down(*made, backend=backend)
        gradients = torch.autograd.grad(y, made, torch.ones_like(y))
        found[backend] = [t.isnan().cpu() for t in (y, *gradients)]
    assert found["torch"][0].any()
    assert all(torch.equal(a, b) for a, b in zip(found["triton"], found["torch"], strict=True))


def test_gradients_repeat_exactly():
    made = [t.to(DEVICE).requires_grad_() for t in leaves((2, 19, 11, 8))]
    first, second = (
        torch.autograd.grad(depthwise_down(*made, backend="triton").square().sum(), made)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operators_are_declared_as_they_behave():
    made = [t.to(DEVICE).requires_grad_() for t in leaves((1, 5, 6, 4))]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(triton_backend.down_forward, tuple(made), test_utils=checks)
    x, weight, _, in_bias = (t.detach() for t in made)
    dy, y = torch.randn(2, 1, 3, 3, 4, device=DEVICE).unbind()
    torch.library.opcheck(
        triton_backend.down_backward, (dy, y, x, weight, in_bias),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_compiles_into_one_graph():
    made = [t.to(DEVICE).requires_grad_() for t in leaves((1, 6, 5, 4))]

    def loss(*made):
        return depthwise_down(*made, backend="triton").square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(*made), made) for f in (compiled, loss))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.gpu
def test_more_than_2_31_numbers():
    """The last image of a batch beyond what 32 bits can count."""
    x = torch.zeros(2, 128, 128, 65_600, device=DEVICE, dtype=torch.bfloat16)
    x[-1] = torch.randn(128, 128, 1, device=DEVICE).to(x.dtype)
    weight = torch.randn(1, 1, 3, 3, device=DEVICE).expand(65_600, 1, 3, 3).contiguous()
    zero = torch.zeros(65_600, device=DEVICE)
    with torch.no_grad():
        y = depthwise_down(x, weight, zero, zero, backend="triton")
        one = depthwise_down(
            x[-1:, ..., :64].contiguous(), weight[:64], zero[:64], zero[:64], backend="triton"
        )
    assert torch.equal(y[-1:, ..., -64:], one)
    assert not y[0].any()
