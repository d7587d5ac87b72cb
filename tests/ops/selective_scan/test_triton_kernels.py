"""The Triton kernels, on a GPU or in Triton's interpreter.

Triton decides which as it is first imported, so without a GPU these tests run in a process of their
own: see test_interpreter.py.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from semabench.errors import SemabenchError
from semabench.ops import selective_scan

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_interpreter.py", allow_module_level=True)

from semabench.ops.selective_scan import triton_backend  # noqa: E402

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture
def _short_chunks(monkeypatch):
    """Make tiles of 32 positions, so that short sequences take several."""
    for name in ("FORWARD", "BACKWARD"):
        table = getattr(triton_backend, name)
        short = {limit: config._replace(runs=4) for limit, config in table.items()}
        monkeypatch.setattr(triton_backend, name, short)


def scan_inputs(
    batch, groups, channels, N, L, dtype=torch.float32, gate=False, parts=1, positive=False
):
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator)

    dim = groups * channels
    tensors = {
        "u": normal(batch, dim // parts, L).to(dtype),
        "delta": normal(batch, dim, L).to(dtype),
        "A": -normal(dim, N).exp(),
        "B": normal(batch, groups, N, L).to(dtype),
        "C": normal(batch, groups, N, L).to(dtype),
        "D": normal(dim),
        "delta_bias": 2 * normal(dim) - 2,
    }
    if positive:  # without softplus a negative step makes the state explode
        tensors |= {name: tensors[name].abs() for name in ("delta", "delta_bias")}
    if gate:
        tensors["z"] = normal(batch, dim, L).to(dtype)
    return {name: x.to(DEVICE).requires_grad_() for name, x in tensors.items()}


def assert_equals_float64(tensors, tolerance, **options):
    """Compare the output and every gradient with the float64 CPU backend on the same numbers."""
    exact = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    expected = selective_scan(**exact, **options, backend="torch")
    out = selective_scan(**tensors, **options, backend="triton")
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(out.shape, generator=generator).to(DEVICE, out.dtype)
    values = [out, *torch.autograd.grad((out * target).sum(), list(tensors.values()))]
    loss = (expected * target.double()).sum()
    references = [expected, *torch.autograd.grad(loss, list(exact.values()))]
    for name, a, b in zip(["out", *tensors], values, references, strict=True):
        assert a.dtype == (tensors[name].dtype if name != "out" else tensors["u"].dtype)
        error = (a.double() - b).abs().max() / b.abs().max().clamp_min(1e-3)
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("name", ["b2_d16_l49_n1_g4_softplus", "b2_d8_l50_n16_g1_nosoftplus"])
def test_golden(golden_dir, name):
    golden = load_file(golden_dir / "selective_scan" / f"{name}.safetensors", device=DEVICE)
    tensors = {n: golden[n].requires_grad_() for n in NAMES}
    softplus = not name.endswith("nosoftplus")
    out = selective_scan(**tensors, delta_softplus=softplus, backend="triton")
    torch.testing.assert_close(out.double(), golden["out"], rtol=0, atol=1e-5)
    gradients = torch.autograd.grad((out * golden["proj"]).sum(), list(tensors.values()))
    for n, gradient in zip(NAMES, gradients, strict=True):
        expected = golden[f"grad/{n}"]
        assert (gradient.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.usefixtures("_short_chunks")
@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 2),
    groups=st.integers(1, 2),
    channels=st.integers(1, 5),
    N=st.sampled_from([1, 3]),
    L=st.integers(1, 40),
    gate=st.booleans(),
    softplus=st.booleans(),
    data=st.data(),
)
def test_equals_float64(batch, groups, channels, N, L, gate, softplus, data):
    reverse = tuple(data.draw(st.booleans()) for _ in range(groups))
    parts = data.draw(st.sampled_from([p for p in (1, 2) if groups * channels % p == 0]))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    tensors = scan_inputs(batch, groups, channels, N, L, dtype, gate, parts, not softplus)
    assert_equals_float64(tensors, TOLERANCE[dtype], delta_softplus=softplus, reverse=reverse)


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("N", [1, 4])
@pytest.mark.parametrize("reverse", [False, True, (False, True)])
def test_several_chunks_in_every_direction(N, reverse):
    tensors = scan_inputs(1, 2, 2, N, 70, gate=N > 1)
    assert_equals_float64(tensors, 1e-5, delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("L", [16, 19])
def test_strides_do_not_matter(L):
    tensors = scan_inputs(2, 2, 4, 2, L, positive=True)
    whole = torch.cat((tensors["u"], tensors["delta"]), dim=1).detach()
    u, delta = whole.chunk(2, dim=1)  # batch stride of twice as many channels
    rows = torch.cat((tensors["B"], tensors["C"]), dim=2).detach()
    B, C = rows.split(2, dim=2)
    transposed = tensors["u"].detach().mT.contiguous().mT
    expected = selective_scan(**tensors, backend="torch")
    for u_like in (u, transposed):
        strided = tensors | {"u": u_like, "delta": delta, "B": B, "C": C}
        out = selective_scan(**strided, backend="triton")
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_every_call_sees_its_own_layout():
    """Kernels are kept from call to call: another alignment or dtype must get another."""
    tensors = {n: x.detach() for n, x in scan_inputs(1, 1, 2, 1, 12, positive=True).items()}
    expected = selective_scan(**tensors, backend="torch")
    for shift in (0, 1, 0):  # entries off an address of 16 bytes
        shifted = {}
        for name, x in tensors.items():
            room = x.new_zeros(x.numel() + 8)
            shifted[name] = room[shift : shift + x.numel()].view(x.shape).copy_(x)
        out = selective_scan(**shifted, backend="triton")
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    half = tensors | {name: tensors[name].half() for name in ("u", "delta")}
    out = selective_scan(**half, backend="triton")
    torch.testing.assert_close(out, expected.half(), rtol=1e-2, atol=1e-2)


def test_optional_inputs_may_be_left_out():
    tensors = scan_inputs(1, 1, 2, 1, 4, positive=True)
    for left_out in ({"D"}, {"delta_bias"}, {"D", "delta_bias"}):
        assert_equals_float64({n: x for n, x in tensors.items() if n not in left_out}, 1e-5)


def test_second_derivatives_are_refused():
    tensors = scan_inputs(1, 1, 1, 1, 5)
    out = selective_scan(**tensors, backend="triton").square().sum()
    (du,) = torch.autograd.grad(out, tensors["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        du.sum().backward()


def test_steps_of_any_size():
    """softplus keeps its digits from exp(-30) to far beyond where exp overflows."""
    tensors = scan_inputs(1, 1, 8, 1, 8)
    tensors["delta"] = torch.linspace(-30, 120, 64, device=DEVICE).view(1, 8, 8).requires_grad_()
    tensors["delta_bias"] = torch.zeros(8, device=DEVICE, requires_grad=True)
    assert_equals_float64(tensors, 1e-5, delta_softplus=True)
    # One step: out = dt B u C exactly, so that the digits of every dt show.
    one = scan_inputs(1, 1, 64, 1, 1)
    one = {name: torch.ones_like(x) for name, x in one.items()} | {"A": -one["A"].detach().abs()}
    one["delta"] = torch.linspace(-30, 120, 64, device=DEVICE).view(1, 64, 1)
    one |= {"D": torch.zeros(64, device=DEVICE), "delta_bias": torch.zeros(64, device=DEVICE)}
    out = selective_scan(**one, delta_softplus=True, backend="triton")
    expected = torch.nn.functional.softplus(one["delta"].double())
    torch.testing.assert_close(out.double(), expected, rtol=5e-6, atol=0)


def test_gradients_repeat_exactly():
    tensors = scan_inputs(2, 2, 5, 2, 20, positive=True)
    first, second = (
        torch.autograd.grad(
            selective_scan(**tensors, backend="triton").square().sum(), list(tensors.values())
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operator_is_declared_as_it_behaves():
    """Schema, fake outputs (what torch.compile plans with) and autograd registration agree."""
    tensors = scan_inputs(1, 1, 2, 2, 9, gate=True)
    arguments = [tensors.get(name) for name in (*NAMES[:6], "z", "delta_bias")]
    torch.library.opcheck(
        triton_backend.scan_forward,
        (*arguments, True, 1, True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    dout, states = torch.ones(1, 2, 9, device=DEVICE), torch.empty(0, device=DEVICE)
    detached = [None if x is None else x.detach() for x in arguments]
    torch.library.opcheck(
        triton_backend.scan_backward,
        (dout, *detached, states, True, 1),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_float64_is_refused():
    tensors = {n: x.detach().double() for n, x in scan_inputs(1, 1, 1, 1, 1).items()}
    with pytest.raises(SemabenchError, match="takes no float64; use 'torch'"):
        selective_scan(**tensors, backend="triton")


def test_compiles_into_one_graph():
    tensors = scan_inputs(1, 2, 2, 1, 9)

    def loss(backend, **inputs):
        out = selective_scan(**inputs, delta_softplus=True, reverse=(False, True), backend=backend)
        return out.square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    values, expected = (
        torch.autograd.grad(run("triton", **tensors), list(tensors.values()))
        for run in (compiled, loss)
    )
    for a, b in zip(values, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("N", [1, 16])
@pytest.mark.parametrize("L", [49, 197, 784, 3136])
def test_real_sizes(dtype, N, L):
    tensors = scan_inputs(2, 4, 24, N, L, dtype, gate=N > 1)
    assert_equals_float64(
        tensors, TOLERANCE[dtype], delta_softplus=True, reverse=(False, False, True, True)
    )


@pytest.mark.gpu
def test_65536_positions_stay_finite():
    tensors = scan_inputs(1, 2, 16, 1, 65536, torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        assert_equals_float64(tensors, 1e-2, delta_softplus=True, reverse=(False, True))
