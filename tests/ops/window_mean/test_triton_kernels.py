"""The Triton kernels against float64, on a GPU or in Triton's interpreter (test_interpreter.py)."""

import copy
import os

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.mixers import create_mixer
from semabench.models import backend_name
from semabench.models.mila import Backbone
from semabench.ops import depthwise_conv, window_mean, window_mean_fused

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_interpreter.py", allow_module_level=True)

from semabench.ops.window_mean import triton_backend  # noqa: E402

TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# The interpreter's products of bfloat16 are wrong.
BFLOAT16 = pytest.param(torch.bfloat16, marks=pytest.mark.gpu)


def assert_equals_float64(shape, heads, window, shift=0, mean=True, local=True, dtype=None):
    dtype = dtype or torch.float32
    *grid, channels = shape
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(*grid, 3 * channels, generator=generator).to(dtype)
    weight = torch.randn(channels, 1, 3, 3, generator=generator)
    bias = torch.randn(channels, generator=generator)
    dy = torch.randn(*shape, generator=generator).to(dtype)
    leaves = [qkv, weight, bias] if local else [qkv]

    mine = [t.to(DEVICE).requires_grad_() for t in leaves]
    more = dict(zip(("weight", "bias"), mine[1:], strict=False))
    y = window_mean_fused(mine[0], heads, window, shift=shift, mean=mean, **more)
    found = [y, *torch.autograd.grad(y, mine, dy.to(DEVICE))]

    exact = [t.double().requires_grad_() for t in leaves]
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in exact[0].chunk(3, dim=-1))
    z = window_mean(q, k, v, window, shift=shift, mean=mean, backend="reference").flatten(3)
    if local:
        z = depthwise_conv(v.flatten(3), exact[1], exact[2], add=z, backend="reference")
    expected = [z, *torch.autograd.grad(z, exact, dy.double())]
    for name, got, right in zip(("y", "qkv", "weight", "bias"), found, expected, strict=False):
        error = (got.double().cpu() - right).abs().max() / right.abs().max().clamp_min(1e-3)
        assert error <= TOLERANCE[dtype], f"{name}: {error:.1e}"


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("shape", [(1, 7, 7, 32), (1, 1, 1, 8), (1, 1, 9, 20), (2, 9, 8, 16)])
def test_equals_float64(shape, local, mean):
    assert_equals_float64(shape, 2 if shape[-1] == 32 else 1, 7, mean=mean, local=local)


@pytest.mark.parametrize(
    ("window", "shift"), [(7, 3), (8, 4), ((2, 5), (1, 0)), ((3, 4), (1, 1)), (1, 0)]
)
def test_windows_and_shifts(window, shift):
    assert_equals_float64((1, 9, 16, 16), 1, window, shift)


@pytest.mark.parametrize("dtype", [torch.float16, BFLOAT16])
def test_half_precision(dtype):
    assert_equals_float64((2, 8, 9, 32), 2, 7, dtype=dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("side", [7, 14, 28, 56, 31, 73])
def test_real_sizes(side):
    channels = {7: 512, 14: 256, 28: 128}.get(side, 64)
    assert_equals_float64((2, side, side, channels), channels // 32, 7, dtype=torch.bfloat16)


def test_gradients_repeat_exactly():
    torch.manual_seed(0)
    qkv = torch.randn(1, 9, 8, 48, device=DEVICE, requires_grad=True)
    weight = torch.randn(16, 1, 3, 3, device=DEVICE, requires_grad=True)
    first, second = (
        torch.autograd.grad(
            window_mean_fused(qkv, 1, 4, weight=weight).square().sum(), (qkv, weight)
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operators_are_declared_as_they_behave():
    qkv = torch.randn(1, 5, 4, 48, device=DEVICE, requires_grad=True)
    weight = torch.randn(16, 1, 3, 3, device=DEVICE, requires_grad=True)
    bias = torch.randn(16, device=DEVICE, requires_grad=True)
    options = (1, [3, 3], [1, 1], 0.25, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for local in ((weight, bias), (None, None)):
        arguments = (qkv, *local, *options)
        torch.library.opcheck(triton_backend.node_forward, arguments, test_utils=checks)
    dy = torch.randn(1, 5, 4, 16, device=DEVICE)
    torch.library.opcheck(
        triton_backend.node_backward,
        (dy, qkv.detach(), weight.detach(), *options),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compiles_into_one_graph():
    torch.manual_seed(0)
    qkv = torch.randn(1, 5, 4, 48, device=DEVICE, requires_grad=True)

    def loss(qkv):
        return window_mean_fused(qkv, 1, 3).square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(qkv), qkv)[0] for f in (compiled, loss))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["sema", "window"])
@pytest.mark.parametrize("options", [{}, {"lepe": False}, {"shift": True, "scale": False}])
def test_a_mixer_gives_the_same_by_either_backend(name, options):
    torch.manual_seed(0)
    fused = create_mixer(name, 32, 2, backend="triton", window_size=4, **options).to(DEVICE)
    plain = create_mixer(name, 32, 2, backend="sdpa", window_size=4, **options).to(DEVICE)
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(1, 5, 6, 32, device=DEVICE)
    assert fused.resolved_backend(x.device) == "triton"
    assert_same(fused, plain, x)
    assert fused.double().resolved_backend(x.device) == "sdpa"


def assert_same(fused, plain, x):
    """Outputs and gradients of all weights, within what the order of sums makes."""
    found, expected = (model(x) for model in (fused, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for y in (found, expected):
        y.square().sum().backward()
    for (name, a), b in zip(fused.named_parameters(), plain.parameters(), strict=True):
        error = (a.grad - b.grad).norm() / b.grad.norm().clamp_min(1e-3)
        assert error < 1e-3, f"{name}: {error:.1e}"


def test_a_model_gives_the_same_with_kernels_and_without():
    """With its copy, as averaged weights are one, and with weights that do not learn."""
    torch.manual_seed(0)
    small = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 3}
    fused = Backbone(**small, window_size=4).to(DEVICE)
    plain = Backbone(**small, backend="sdpa", conv_backend="torch", window_size=4).to(DEVICE)
    plain.load_state_dict(fused.state_dict())
    assert backend_name(fused, torch.device(DEVICE)) == "triton"
    assert backend_name(plain, torch.device(DEVICE)) == "sdpa"
    x = torch.randn(2, 3, 24, 20, device=DEVICE)
    copied = copy.deepcopy(fused)
    assert_same(fused, plain, x)
    for model in (copied, fused):
        model.set_grad_checkpointing()
        model.zero_grad()
    copied.stages[0].requires_grad_(False)
    plain.zero_grad()
    assert_same(fused, plain, x)
    copied(x).sum().backward()
    assert copied.stages[0].blocks[0].cpe1.weight.grad is None
    assert copied.stages[1].blocks[0].cpe1.weight.grad is not None


@pytest.mark.parametrize(
    ("qkv", "heads", "tensors", "message"),
    [
        ((1, 4, 4, 48), 3, {}, "qkv .* for 3 heads"),
        ((1, 4, 4, 3 * 65), 1, {}, "takes 64 channels a head, not 65"),
        ((1, 4, 4, 48), 1, {"weight": (8, 1, 3, 3)}, r"weight \(16, 1, 3, 3\)"),
        ((1, 4, 4, 48), 1, {"bias": (16,)}, "needs weight"),
    ],
)
def test_shapes_that_do_not_fit(qkv, heads, tensors, message):
    more = {name: torch.zeros(shape) for name, shape in tensors.items()}
    with pytest.raises(SemabenchError, match=message):
        window_mean_fused(torch.zeros(qkv), heads, 4, **more)


def test_windows_of_too_many_tokens_are_refused():
    with pytest.raises(SemabenchError, match="takes 64 tokens a window, not 9x8"):
        window_mean_fused(torch.zeros(1, 9, 9, 48, device=DEVICE), 1, (9, 8))
