"""Linear attention against a loop over tokens."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from semabench.errors import SemabenchError
from semabench.ops import linear_attention, linear_attention_backend, rotary
from semabench.ops.linear_attention import BACKENDS, rotary_table

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # float64
EPS = 1e-6


def loop(q, k, v, qn, kn):
    B, H, W, heads, _ = q.shape
    out = torch.empty_like(v)
    tokens = [(y, x) for y in range(H) for x in range(W)]
    for b in range(B):
        for h in range(heads):
            for i in tokens:
                numerator = sum((q[b, *i, h] @ k[b, *j, h]) * v[b, *j, h] for j in tokens)
                denominator = sum(qn[b, *i, h] @ kn[b, *j, h] for j in tokens)
                out[b, *i, h] = numerator / (denominator + len(tokens) * EPS)
    return out


def features(B, H, W, heads, d=4, count=5):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(B, H, W, heads, d, generator=generator, dtype=torch.float64) + 0.1
        for _ in range(count)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None)
@given(
    H=st.integers(1, 5),
    W=st.integers(1, 5),
    B=st.integers(1, 2),
    heads=st.integers(1, 2),
    normalizers=st.booleans(),
)
def test_equals_the_loop(backend, H, W, B, heads, normalizers):
    q, k, v, qn, kn = features(B, H, W, heads)
    extra = {"q_normalizer": qn, "k_normalizer": kn} if normalizers else {}
    out = linear_attention(q, k, v, eps=EPS, backend=backend, **extra)
    expected = loop(q, k, v, *((qn, kn) if normalizers else (q, k)))
    torch.testing.assert_close(out, expected, **TIGHT)


def test_gradients_agree_with_the_reference():
    inputs = [x.requires_grad_() for x in features(2, 5, 3, 2)]
    target = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64)
    gradients = []
    for backend in BACKENDS:
        q, k, v, qn, kn = inputs
        out = linear_attention(q, k, v, q_normalizer=qn, k_normalizer=kn, backend=backend)
        gradients.append(torch.autograd.grad((out * target).sum(), inputs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_sum_to_one(backend):
    q, k, v, *_ = features(1, 4, 7, 2)
    out = linear_attention(q, k, torch.ones_like(v), eps=0.0, backend=backend)
    torch.testing.assert_close(out, torch.ones_like(v), **TIGHT)


def test_order_of_tokens_does_not_matter():
    q, k, v, *_ = features(1, 4, 6, 2)
    order = torch.randperm(24)

    def shuffle(x):
        return x.flatten(1, 2)[:, order].unflatten(1, (4, 6))

    out = linear_attention(*(shuffle(x) for x in (q, k, v)))
    torch.testing.assert_close(out, shuffle(linear_attention(q, k, v)), **TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_with_vanishing_keys(dtype):
    q, k, v = (x.to(dtype) for x in features(1, 64, 64, 1, count=3))
    out = linear_attention(q, torch.zeros_like(k), v)
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


def test_half_precision_agrees_with_float64():
    q, k, v = features(1, 32, 32, 2, d=16, count=3)
    out = linear_attention(*(x.bfloat16() for x in (q, k, v)))
    torch.testing.assert_close(out.double(), linear_attention(q, k, v), rtol=0.02, atol=0)


def test_backend_names():
    assert linear_attention_backend() in BACKENDS
    with pytest.raises(SemabenchError, match="Did you mean 'reference'"):
        linear_attention_backend("refrence")


def rotary_loop(x):
    _, H, W, C = x.shape
    out = torch.empty_like(x)
    quarter = C // 4
    for b, y, z, pair in torch.cartesian_prod(
        *(torch.arange(n) for n in (x.shape[0], H, W, C // 2))
    ).tolist():
        position = y if pair < quarter else z
        angle = position * 10000 ** (-(pair % quarter) / quarter)
        number = complex(x[b, y, z, 2 * pair], x[b, y, z, 2 * pair + 1]) * cmath.exp(1j * angle)
        out[b, y, z, 2 * pair], out[b, y, z, 2 * pair + 1] = number.real, number.imag
    return out


@settings(max_examples=15, deadline=None)
@given(H=st.integers(1, 5), W=st.integers(1, 5), quarter=st.integers(1, 4))
def test_rotary_equals_the_loop(H, W, quarter):
    x = torch.randn(2, H, W, 4 * quarter, dtype=torch.float64)
    torch.testing.assert_close(rotary(x), rotary_loop(x), rtol=0, atol=1e-12)


def test_products_depend_on_distance_only():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    q, k = (rotary(x.expand(1, 6, 9, 8))[0] for x in (q, k))
    near = q[1, 2] @ k[3, 7]
    torch.testing.assert_close(q[2, 3] @ k[4, 8], near)
    assert abs(q[1, 2] @ k[3, 8] - near) > 1e-6


def test_official_tables(golden_dir):
    tables = {
        key: table
        for file in ("tiny_64", "tiny_96")
        for key, table in load_file(golden_dir / f"mlla/{file}.safetensors").items()
        if key.endswith("rope.rotations")
    }
    assert len(tables) == 5
    for table in tables.values():
        H, W, pairs, _ = table.shape
        ours = rotary_table(H, W, 2 * pairs, 10000.0, torch.device("cpu"), torch.float32)
        torch.testing.assert_close(ours.movedim(0, -1), table, rtol=0, atol=3e-6)


def test_half_precision_is_rotated_in_float32():
    x = torch.randn(1, 200, 3, 8).bfloat16()
    out = rotary(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, rotary(x.double()).bfloat16(), rtol=0.01, atol=1e-2)


def test_training_after_inference_mode():
    x = torch.randn(1, 7, 13, 4)
    with torch.inference_mode():
        rotary(x)
    x.requires_grad_()
    rotary(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_channels_must_divide_by_four():
    with pytest.raises(SemabenchError, match="4 divides, not 6"):
        rotary(torch.zeros(1, 2, 2, 6))
