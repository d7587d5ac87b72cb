"""Selective scan: the reference against plain arithmetic, the CPU backend against the reference."""

import importlib
import sys
import time
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from semabench.errors import SemabenchError
from semabench.ops import selective_scan, selective_scan_backend
from semabench.ops.selective_scan import torch_backend

scan_module = importlib.import_module("semabench.ops.selective_scan")  # no function
TIGHT = {"rtol": 1e-10, "atol": 1e-10}  # float64
GOLDEN = [
    f"{shape}_{softplus}"
    for shape in ("b1_d6_l257_n4_g2", "b2_d16_l49_n1_g4", "b2_d8_l50_n16_g1")
    for softplus in ("softplus", "nosoftplus")
]
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def scan_inputs(batch=2, groups=2, channels=3, N=4, L=9, dtype=torch.float64, gate=True, parts=1):
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    dim = groups * channels
    tensors = {
        "u": normal(batch, dim // parts, L),
        "delta": 0.5 * normal(batch, dim, L).abs(),  # a negative step makes the state explode
        "A": -normal(dim, N).exp(),
        "B": normal(batch, groups, N, L),
        "C": normal(batch, groups, N, L),
        "D": normal(dim),
        "delta_bias": normal(dim).abs(),
    }
    if gate:
        tensors["z"] = normal(batch, dim, L)
    return {name: x.to(dtype).requires_grad_() for name, x in tensors.items()}


def with_gradients(tensors, **options):
    out = selective_scan(**tensors, **options)
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad((out * target).sum(), list(tensors.values()))]


def assert_all_close(values, expected, tolerance):
    """Compare relative to the largest number of each tensor; a NaN is never close."""
    for a, b in zip(values, expected, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b.double()).abs().max() <= tolerance * b.abs().max().clamp_min(1e-3)


def by_hand(t, softplus, reverse):
    """The equations, number by number."""
    exp, log1p = torch.exp, torch.log1p
    batch, dim, L = t["delta"].shape
    groups, N = t["B"].shape[1:3]
    out = torch.zeros(batch, dim, L, dtype=torch.float64)
    for b in range(batch):
        for d in range(dim):
            g, h = d // (dim // groups), [0.0] * N
            for i in reversed(range(L)) if reverse[g] else range(L):
                dt = t["delta"][b, d, i] + t["delta_bias"][d]
                dt = log1p(exp(dt)) if softplus else dt
                u, z = t["u"][b, d % t["u"].shape[1], i], t["z"][b, d, i]
                h = [exp(dt * t["A"][d, n]) * h[n] + dt * t["B"][b, g, n, i] * u for n in range(N)]
                y = sum(t["C"][b, g, n, i] * h[n] for n in range(N)) + t["D"][d] * u
                out[b, d, i] = y * z / (1 + exp(-z))
    return out


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize(("parts", "reverse"), [(1, (False, True)), (2, (True, False))])
def test_reference_is_the_equation(softplus, parts, reverse):
    tensors = {name: x.detach() for name, x in scan_inputs(L=4, N=2, parts=parts).items()}
    out = selective_scan(**tensors, delta_softplus=softplus, reverse=reverse, backend="reference")
    torch.testing.assert_close(out, by_hand(tensors, softplus, reverse), **TIGHT)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_golden(golden_dir, name, backend):
    golden = load_file(golden_dir / "selective_scan" / f"{name}.safetensors")
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        tensors = {n: golden[n].to(dtype).requires_grad_() for n in NAMES}
        softplus = not name.endswith("nosoftplus")
        out = selective_scan(**tensors, delta_softplus=softplus, backend=backend)
        torch.testing.assert_close(out.double(), golden["out"], rtol=0, atol=tolerance)
        loss = (out * golden["proj"].to(dtype)).sum()
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        assert_all_close(gradients, [golden[f"grad/{n}"] for n in NAMES], tolerance)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.integers(1, 4),
    N=st.integers(1, 5),
    L=st.integers(1, 40),
    gate=st.booleans(),
    softplus=st.booleans(),
    data=st.data(),
)
def test_torch_equals_the_reference(batch, groups, channels, N, L, gate, softplus, data):
    reverse = tuple(data.draw(st.booleans()) for _ in range(groups))
    parts = data.draw(st.sampled_from([p for p in (1, 2, 3) if groups * channels % p == 0]))
    dtype, tolerance = data.draw(
        st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
    )
    tensors = scan_inputs(batch, groups, channels, N, L, dtype, gate, parts)
    options = {"delta_softplus": softplus, "reverse": reverse}
    values = with_gradients(tensors, **options, backend="torch")
    assert all(a.dtype == dtype for a in values)
    assert_all_close(values, with_gradients(tensors, **options, backend="reference"), tolerance)


@pytest.mark.parametrize("reverse", [False, True, (True, False)])
def test_chunks_join(monkeypatch, reverse):
    tensors = scan_inputs(L=23)
    expected = with_gradients(tensors, reverse=reverse, backend="reference")
    monkeypatch.setattr(torch_backend, "CHUNK_ENTRIES", 2 * 6 * 4 * 5)  # five positions
    values = with_gradients(tensors, reverse=reverse, backend="torch")
    assert_all_close(values, expected, 1e-10)


@pytest.mark.parametrize("reverse", [False, (False, True)])
def test_gradcheck(reverse):
    tensors = scan_inputs(batch=1, channels=2, N=2, L=5)

    def run(*values):
        return selective_scan(
            **dict(zip(tensors, values, strict=True)), delta_softplus=True, reverse=reverse
        )

    assert torch.autograd.gradcheck(run, tuple(tensors.values()))


def test_directions_mirror_each_other():
    tensors = {name: x.detach() for name, x in scan_inputs().items()}
    turned = {name: x.flip(-1) if x.ndim > 2 else x for name, x in tensors.items()}
    for backend in ("reference", "torch"):
        out = selective_scan(**tensors, reverse=True, backend=backend)
        torch.testing.assert_close(out.flip(-1), selective_scan(**turned, backend=backend), **TIGHT)


def test_strides_do_not_matter():
    tensors = scan_inputs()
    expected = with_gradients(tensors)
    strided = {
        name: x.detach().movedim(-1, 0).contiguous().movedim(0, -1).requires_grad_()
        for name, x in tensors.items()
    }
    assert_all_close(with_gradients(strided), expected, 1e-10)


def test_optional_inputs_may_be_left_out():
    tensors = scan_inputs()
    bare = {name: tensors[name] for name in ("u", "delta", "A", "B", "C")}
    zeros = {name: torch.zeros_like(tensors[name]) for name in ("D", "delta_bias")}
    expected = selective_scan(**bare, **zeros, backend="reference")
    torch.testing.assert_close(selective_scan(**bare, backend="torch"), expected, **TIGHT)


def test_long_sequences_stay_finite_in_bfloat16():
    tensors = scan_inputs(batch=1, channels=1, N=1, L=8192, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        values = with_gradients(tensors, delta_softplus=True, reverse=(False, True))
    assert all(x.isfinite().all() for x in values)


def test_backward_is_linear_in_length():
    def seconds(L):
        tensors = scan_inputs(groups=1, channels=16, N=1, L=L, dtype=torch.float32)
        started = time.process_time()
        with_gradients(tensors)
        return time.process_time() - started

    seconds(64)
    assert min(seconds(8192) for _ in range(3)) < 8 * min(seconds(2048) for _ in range(3))


def test_memory_is_linear_in_length():
    """All that both passes ever allocate, so their peak is, too; a loop under autograd is not."""

    class Allocated(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            known = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in known:
                self.entries += out.numel()
            return out

    def entries(L, backend):
        tensors = scan_inputs(groups=1, channels=2, N=1, L=L, dtype=torch.float32)
        with Allocated() as allocated:
            with_gradients(tensors, backend=backend)
        return allocated.entries

    assert entries(512, "torch") < 4.1 * entries(128, "torch")
    assert entries(512, "reference") > 8 * entries(128, "reference")


def test_mamba_ssm_gets_everything_forwards(monkeypatch):
    """The official package runs on a GPU only: a stand-in with its signature takes its place."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        return selective_scan(
            u, delta, A, B, C, D, z, delta_bias=delta_bias, delta_softplus=delta_softplus
        )

    name = "mamba_ssm.ops.selective_scan_interface"
    module = types.ModuleType(name)
    module.selective_scan_fn = selective_scan_fn
    for part in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(scan_module.LACKS, "mamba_ssm", "")
    tensors = scan_inputs(dtype=torch.float32, parts=2)
    for reverse in (False, True, (False, True)):
        options = {"reverse": reverse, "delta_softplus": True}
        values = with_gradients(tensors, **options, backend="mamba_ssm")
        assert_all_close(values, with_gradients(tensors, **options), 1e-5)


def test_backend_names(monkeypatch):
    assert selective_scan_backend("auto", torch.device("cpu")) == "torch"
    with pytest.raises(SemabenchError, match=r"no backend 'tritn'.*triton"):
        selective_scan_backend("tritn")
    assert selective_scan_backend("auto") == "torch"
    monkeypatch.setitem(scan_module.LACKS, "triton", "")
    assert selective_scan_backend("auto", torch.device("cuda"), torch.bfloat16) == "triton"
    assert selective_scan_backend("auto", torch.device("cuda"), torch.float64) == "torch"
    monkeypatch.setitem(scan_module.LACKS, "triton", "a C compiler")
    monkeypatch.setitem(scan_module.LACKS, "mamba_ssm", "the package mamba_ssm")
    assert selective_scan_backend("auto", torch.device("cuda")) == "torch"
    with pytest.raises(SemabenchError, match="package mamba_ssm, which is not installed"):
        selective_scan_backend("mamba_ssm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": (2, 4, 9)}, r"u of shape \(2, 6, 9\)"),
        ({"delta": (2, 6)}, r"delta \(batch, dim, L >= 1\)"),
        ({"A": (6, 3)}, r"B of shape \(2, 2, 3, 9\)"),
        ({"C": (2, 2, 4, 8)}, r"C of shape \(2, 2, 4, 9\)"),
        ({"B": (2, 4, 4, 9), "C": (2, 4, 4, 9)}, "4 groups"),
        ({"D": (5,)}, r"D of shape \(6,\)"),
        ({"z": (2, 3, 9)}, r"z of shape \(2, 6, 9\)"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    tensors = scan_inputs() | {name: torch.ones(shape) for name, shape in change.items()}
    with pytest.raises(SemabenchError, match=message):
        selective_scan(**tensors)


def test_reverse_must_fit_the_groups():
    with pytest.raises(SemabenchError, match="one bool or 2, not 3"):
        selective_scan(**scan_inputs(), reverse=(True, False, True))
